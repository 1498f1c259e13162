// @ts-check
// One image: what the model thought, what is like it, and what becomes of it.

/** @import { Gallery } from "./gallery.js" */
/** @import { Report, SplitName } from "./types" */

import { goTo } from "./address.js";
import { buttonOf, byId, dialogOf, fillSelect, inputOf, make, makeSvg, selectOf } from "./elements.js";
import { Overlay } from "./overlay.js";
import { thumb } from "./pictures.js";
import { suggestionOf } from "./rows.js";
import { capital, count, percent } from "./words.js";

/**
 * What each cause of the error budget means for one image.
 * @type {Record<string, (report: Report, row: number) => string>}
 */
export const CAUSE_WORDS = {
  "label issue": ({ manifest, tables: { test } }, row) =>
    `The label is probably wrong: label quality ${test.label_quality[row].toFixed(2)}, `
    + `${manifest.names[test.suggested[row]]} suggested.`,
  "near-duplicate in training": ({ tables: { test } }, row) =>
    `A near-duplicate is in the training set: image ${test.near_duplicate[row]}.`,
  "shortcut": ({ manifest, tables: { test } }, row) =>
    `The model follows a shortcut. ${manifest.slices[test.slice[row]]?.evidence ?? ""}`,
  "ambiguous": ({ tables: { test } }, row) =>
    `Answers to it differ, or are unsure: ambiguity ${test.ambiguity[row].toFixed(2)} of 1.`,
  "confused pair": ({ manifest, tables: { test } }, row) =>
    `${manifest.names[test.label[row]]} and ${manifest.names[test.predicted[row]]} are often taken for each other.`,
  "unexplained": () => "None of the known causes fits. Look at the image.",
};

const PICTURE = "Picture";

/**
 * A button that copies the path of a picture.
 * @param {string} path as it is shown, between marks that keep its direction
 */
function copier(path) {
  const copy = async () => {
    await navigator.clipboard.writeText(path.replace(/[\u2068\u2069]/g, "")).catch(() => {});
    button.textContent = "Copied";
  };
  const button = make("button", { type: "button", class: "copy", click: copy }, "Copy");
  return button;
}

export class Details {
  /**
   * @param {Report} report
   * @param {Gallery} gallery
   */
  constructor(report, gallery) {
    this.report = report;
    this.gallery = gallery;
    this.overlay = new Overlay(report);
    this.dialog = dialogOf("viewer");
    fillSelect("d-label", report.manifest.names, { byPlace: true });
    byId("d-back").addEventListener("click", () => this.step(-1));
    byId("d-next").addEventListener("click", () => this.step(1));
    byId("d-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => this.closed());
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    this.startDecision();
  }

  /** The row of the open image; undefined where none is open, or the page has none of it. */
  openRow() {
    const { view, tables } = this.report;
    return view.open === null ? undefined : tables[view.set].row.get(view.open);
  }

  /** Show the open image of the view, or none. */
  show() {
    const { report, dialog } = this;
    const row = this.openRow();
    if (row === undefined) {
      if (dialog.open) dialog.close();
      return;
    }
    const { manifest, tables, view, listed } = report;
    const test = view.set === "test";
    byId("d-title").textContent = `${test ? "Test" : "Training"} image ${view.open}`;
    const place = listed.indexOf(row);
    byId("d-place").textContent = place < 0 ? "" : `${count(place + 1)} of ${count(listed.length)}`;
    buttonOf("d-back").disabled = place <= 0;
    buttonOf("d-next").disabled = place < 0 || place === listed.length - 1;
    byId("d-answer").replaceChildren(...(test ? answer(report, row) : trained(report, row)));
    const cause = test ? manifest.enums.causes[tables.test.cause[row] - 1] : "";
    byId("d-cause").textContent = CAUSE_WORDS[cause]?.(report, row) ?? "";
    byId("d-top").replaceChildren(...(test ? [mostProbable(report, row)] : []));
    byId("d-curve").replaceChildren(...(test ? [] : curve(report, row)));
    byId("d-facts").replaceChildren(...facts(report, row).map(
      ([name, value]) => make("div", {}, make("dt", {}, name),
        make("dd", {}, value, name === PICTURE ? copier(value) : null))));
    byId("d-near").replaceChildren(...near(report, row));
    selectOf("d-label").value = String(suggestionOf(report, view.set, row));
    inputOf("d-note").value = "";
    this.showDecision();
    if (!dialog.open) {
      dialog.showModal();
      byId("d-title").focus();
    }
    dialog.scrollTop = 0;
    this.overlay.show(row);
  }

  closed() {
    if (this.report.view.open === null) return;
    goTo(this.report, { open: null });
    byId("grid").focus({ preventScroll: true });
  }

  /**
   * Go to another image of the list.
   * @param {number} by how many places on
   */
  step(by) {
    const { report } = this;
    const row = this.openRow();
    const place = row === undefined ? -1 : report.listed.indexOf(row) + by;
    if (report.listed[place] === undefined) return;
    goTo(report, { open: report.tables[report.view.set].index[report.listed[place]] });
    this.gallery.moveTo(place);
    this.show();
  }

  startDecision() {
    const { decisions, manifest } = this.report;
    const { actions } = manifest.enums;
    const choices = [...actions.map((action, k) => [action, `${k + 1} ${capital(action)}`]), ["", "0 Undecided"]];
    byId("d-actions").replaceChildren(...choices.map(([action, words]) => make("button", {
      "type": "button", "data-action": action, "click": () => this.decide(action),
    }, words)));
    const made = () => decisions.of(this.report.view.set, this.report.view.open ?? -1);
    byId("d-label").addEventListener("input", () => {
      if (made()?.action === "relabel") this.decide("relabel");
    });
    byId("d-note").addEventListener("change", () => {
      const one = made();
      const note = inputOf("d-note").value;
      if (one) decisions.decide(one.split, one.index, one.action, { label: one.label, note });
    });
  }

  showDecision() {
    const { manifest: { data }, view, decisions } = this.report;
    if (this.openRow() === undefined || !data) return;
    const made = decisions.of(view.set, view.open ?? -1);
    for (const button of byId("d-actions").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.action === (made?.action ?? "")));
    }
    if (made?.label) selectOf("d-label").value = String(data.class_names.indexOf(made.label));
    if (made) inputOf("d-note").value = made.note;
  }

  /**
   * Decide on the open image, or on the active one of the gallery with what the audit suggests.
   * @param {string} action
   */
  decide(action) {
    const { manifest: { data }, tables, view, decisions, listed, active } = this.report;
    const open = this.openRow();
    const row = open ?? listed[active];
    if (!data || row === undefined) return;
    const cls = open === undefined ? suggestionOf(this.report, view.set, row) : Number(selectOf("d-label").value);
    const note = open === undefined ? undefined : inputOf("d-note").value;
    decisions.decide(view.set, tables[view.set].index[row], action, { label: data.class_names[cls], note });
  }

  /**
   * Decide by a key, and go on to the next image: of many, each then takes one key.
   * @param {string} action
   */
  decideAndGoOn(action) {
    const { report, gallery } = this;
    const [before, inside] = [this.openRow() ?? report.listed[report.active], this.dialog.open];
    this.decide(action);
    if (!action) return;
    if (inside) this.step(1);
    else if (report.listed[report.active] === before) gallery.moveTo(report.active + 1);
  }

  /**
   * Take a key that was pressed while an image is open; return whether it means something here.
   * @param {string} key
   */
  pressed(key) {
    if (key === "ArrowRight" || key === "j") this.step(1);
    else if (key === "ArrowLeft" || key === "k") this.step(-1);
    else if (key === "m" && !byId("d-maps").hidden) this.overlay.chooseNext();
    else return false;
    return true;
  }
}

/**
 * @param {Report} report
 * @param {number} row
 */
function answer({ manifest, tables: { test } }, row) {
  const guess = make("strong", {}, manifest.names[test.predicted[row]]);
  const said = [guess, ` with ${percent(test.confidence[row])} confidence`];
  if (test.predicted[row] === test.label[row]) return [...said, ", as its label says"];
  return [...said, make("br"), "label ", make("strong", {}, manifest.names[test.label[row]])];
}

/**
 * @param {Report} report
 * @param {number} row
 */
function trained({ manifest, tables: { train } }, row) {
  const label = ["label ", make("strong", {}, manifest.names[train.label[row]])];
  if (train.suggested[row] < 0 || train.suggested[row] === train.label[row]) return label;
  return [...label, make("br"), "perhaps ", make("strong", {}, manifest.names[train.suggested[row]])];
}

/**
 * @param {Report} report
 * @param {number} row
 */
function mostProbable({ manifest, tables: { test } }, row) {
  const width = test.top.length / test.size;
  const items = Array.from({ length: width }, (_, k) => {
    const [cls, share] = [test.top[row * width + k], test.top_share[row * width + k] / 65535];
    const bar = make("span", { class: "share" });
    bar.style.width = `${100 * share}%`;
    return make("li", { class: cls === test.label[row] ? "is-label" : null },
      make("span", { class: "name" }, manifest.names[cls]), make("span", { class: "track" }, bar),
      make("span", { class: "number" }, percent(share)));
  });
  return make("ol", { "class": "probable", "aria-label": "Most probable classes" }, ...items);
}

/**
 * @param {Report} report
 * @param {number} row
 * @returns {[name: string, value: string][]}
 */
function facts({ manifest, tables: { test, train }, view }, row) {
  const path = manifest.files?.[view.set]?.path[row];
  /** @type {[string, string][]} */
  const file = path === undefined ? [] : [[PICTURE, `\u2068${path}\u2069`]];
  /** @param {import("./types").Column} values @param {number} digits */
  const number = (values, digits) => (Number.isNaN(values[row]) ? "not known" : values[row].toFixed(digits));
  if (view.set === "train") {
    return [
      ...file,
      ["Label quality (low is bad)", number(train.label_quality, 2)],
      ["Area under the margin", number(train.aum, 2)],
      ["Forgotten", train.forgetting[row] < 0 ? "never learned" : `${number(train.forgetting, 0)}×`],
      ["Mean probability of its label", number(train.p_mean, 2)],
      ["Standard deviation of it", number(train.p_std, 2)],
    ];
  }
  const kind = manifest.enums.kinds[test.difficulty[row] - 1];
  const slice = manifest.slices[test.slice[row]];
  return [
    ...file,
    ["Loss", number(test.loss, 2)],
    ["Margin", number(test.margin, 2)],
    ["Ambiguity", number(test.ambiguity, 2)],
    ["Label quality (low is bad)", number(test.label_quality, 2)],
    ["Classes in its conformal set", String(test.set_size[row])],
    .../** @type {[string, string][]} */ (kind ? [["Difficulty", kind]] : []),
    .../** @type {[string, string][]} */ (slice ? [["Slice", slice.name]] : []),
  ];
}

/**
 * The probability of the label after each epoch, as a line; unseen epochs leave gaps.
 * @param {Report} report
 * @param {number} row
 */
function curve({ manifest: { epochs }, column, tables: { train } }, row) {
  const [packed, at] = [train.curve, column("epoch")];
  if (!epochs || !packed || !at) return [];
  const points = Array.from(packed.subarray(row * epochs, (row + 1) * epochs), (value, k) => ({
    seen: value !== 255, x: 30 + (epochs === 1 ? 0 : 250 * k / (epochs - 1)), y: 82 - 74 * value / 254,
    words: `${at[k]}: ${percent(value / 254, 0)}`,
  }));
  const line = points.map(({ seen, x, y }, k) => (seen ? `${points[k - 1]?.seen ? "L" : "M"}${x} ${y}` : ""));
  const shown = points.filter((point) => point.seen);
  /** @param {number} x @param {number} y @param {string} anchor @param {string} words */
  const text = (x, y, anchor, words) => makeSvg("text", { x, y, "text-anchor": anchor }, words);
  const axes = makeSvg("g", { class: "grid" }, makeSvg("path", { d: "M30 8H280M30 82H280" }),
    text(25, 12, "end", "1"), text(25, 86, "end", "0"),
    text(30, 97, "start", `epoch ${at[0]}`), text(280, 97, "end", String(at[epochs - 1])));
  const dots = shown.map(({ x, y, words }) => makeSvg("circle", { class: "accent", cx: x, cy: y, r: 2.5 },
    makeSvg("title", {}, `epoch ${words}`)));
  const said = `Probability of the label by epoch: ${shown.map((point) => point.words).join(", ")}`;
  return [make("figure", { class: "diagram" }, make("figcaption", {}, "Probability of its label after each epoch"),
    makeSvg("svg", { "class": "plot", "viewBox": "0 0 290 100", "role": "img", "aria-label": said },
      axes, makeSvg("path", { class: "line accent", d: line.join("") }), ...dots))];
}

/**
 * The near-duplicate, and the training images that the model finds most alike.
 * @param {Report} report
 * @param {number} row
 */
function near(report, row) {
  const { column, manifest, tables, view } = report;
  /** @param {SplitName} split @param {number} index @param {string} [words] */
  const labelled = (split, index, words = `${split === "test" ? "test" : "training"} ${index}`) => {
    const known = tables[split].row.get(index);
    const label = known === undefined ? "" : manifest.names[tables[split].label[known]];
    return make("figure", {}, thumb(report, split, index, 80), make("figcaption", {}, label, make("br"), words));
  };
  const blocks = [];
  const duplicate = tables[view.set].near_duplicate[row];
  if (duplicate >= 0) {
    const other = view.set === "test" ? "train" : "test";
    blocks.push(make("h3", {}, "Its near-duplicate"), make("div", { class: "row" }, labelled(other, duplicate)));
  }
  const [rows, indices] = [column("neighbour.row"), column("neighbour.index")];
  const similarity = column("neighbour.similarity");
  const place = view.set === "test" ? rows?.indexOf(view.open ?? -1) ?? -1 : -1;
  if (rows && indices && similarity && place >= 0) {
    const width = indices.length / rows.length;
    const found = Array.from({ length: width }, (_, k) => place * width + k);
    blocks.push(make("h3", {}, "Nearest training images, as the model sees them"), make("div", { class: "row" },
      ...found.map((k) => labelled("train", indices[k], `similarity ${similarity[k].toFixed(2)}`))));
  }
  return blocks;
}
