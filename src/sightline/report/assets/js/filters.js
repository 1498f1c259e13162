// @ts-check
// The form above the gallery, and its two tabs.

/** @import { Report, SplitName, View } from "./types" */

import { EMPTY_VIEW } from "./address.js";
import { buttonOf, byId, elementOf, fillSelect, inputOf, make, selectOf } from "./elements.js";
import { firstSort, SORTS, sortOf } from "./rows.js";
import { count } from "./words.js";

/** @type {Record<string, string>} */
const SORT_NAMES = {
  aum: "area under the margin", p_mean: "mean probability", p_std: "standard deviation of probability",
  label_quality: "label quality",
};
/** @type {SplitName[]} */
const SPLITS = ["test", "train"];

/**
 * Show the filters of the view.
 * @param {Report} report
 */
export function fillFilters({ view }) {
  const train = view.set === "train";
  for (const name of SPLITS) {
    byId(`tab-${name}`).setAttribute("aria-selected", String(view.set === name));
    byId(`tab-${name}`).tabIndex = view.set === name ? 0 : -1;
  }
  for (const label of document.querySelectorAll("#filters [data-only]")) label.toggleAttribute("hidden", train);
  byId("f-pred-name").textContent = train ? "Suggested" : "Predicted";
  const sorts = Object.keys(SORTS[view.set]);
  selectOf("f-sort").replaceChildren(...sorts.map((name) => make("option", { value: name }, SORT_NAMES[name] ?? name)));
  selectOf("f-sort").value = sortOf(view);
  inputOf("f-flip").checked = view.flip;
  inputOf("f-q").value = view.q;
  inputOf("f-low").value = String(view.low);
  inputOf("f-high").value = String(view.high);
  for (const name of /** @type {const} */ (["true", "pred", "is", "kind", "cause", "slice", "done"])) {
    selectOf(`f-${name}`).value = String(view[name] ?? "");
  }
}

/**
 * The part of the view that the form says.
 * @param {SplitName} set
 * @returns {Partial<View>}
 */
function formView(set) {
  /** @param {string} name */
  const text = (name) => selectOf(`f-${name}`).value;
  /** @param {string} name */
  const place = (name) => (text(name) === "" ? null : Number(text(name)));
  /** @param {string} name @param {number} other */
  const bound = (name, other) => {
    const input = inputOf(`f-${name}`);
    return input.value === "" || !input.validity.valid ? other : Number(input.value);
  };
  return {
    q: inputOf("f-q").value, true: place("true"), pred: place("pred"), slice: place("slice"),
    is: text("is"), kind: text("kind"), cause: text("cause"), done: text("done"),
    low: bound("low", 0), high: bound("high", 100), flip: inputOf("f-flip").checked,
    sort: text("sort") === firstSort(set) ? "" : text("sort"),
  };
}

/**
 * Start the form. change: a part of the view is another, and the form says so already; show: a view that the form
 * has yet to say.
 * @param {Report} report
 * @param {{ change: (part: Partial<View>) => void, show: (part: Partial<View>) => void }} then
 */
export function startFilters(report, { change, show }) {
  const { manifest, tables } = report;
  fillSelect("f-true", manifest.names, { first: "all", byPlace: true });
  fillSelect("f-pred", manifest.names, { first: "all", byPlace: true });
  fillSelect("f-cause", manifest.enums.causes, { first: "all" });
  fillSelect("f-kind", manifest.enums.kinds, { first: "all" });
  fillSelect("f-slice", manifest.slices.map((one) => one.name), { first: "all", byPlace: true });
  byId("slice-filter").classList.toggle("none", !manifest.slices.length);
  byId("tab-test").textContent = `Test images (${count(tables.test.size)})`;
  byId("tab-train").textContent = `Training images (${count(tables.train.size)})`;
  const form = elementOf("filters", HTMLFormElement);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => change(formView(report.view.set)));
  buttonOf("clear").addEventListener("click", () => {
    show({ ...EMPTY_VIEW, set: report.view.set });
    byId("grid").focus();
  });
  buttonOf("chip").addEventListener("click", () => show({ fix: null }));
  for (const name of SPLITS) {
    byId(`tab-${name}`).addEventListener("click", () => show({ ...EMPTY_VIEW, set: name }));
    byId(`tab-${name}`).addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      event.preventDefault();
      const other = name === "test" ? "train" : "test";
      show({ ...EMPTY_VIEW, set: other });
      byId(`tab-${other}`).focus();
    });
  }
}
