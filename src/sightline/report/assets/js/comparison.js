// @ts-check
// The page of two runs: pictures in three groups, each with both answers and both maps.

/** @import { ColumnFinder, ComparisonManifest, ComparisonTable } from "./types" */

import { byId, fillSelect, inputOf, make, selectOf } from "./elements.js";
import { gridOf, heatOf, paintHeat } from "./heat.js";
import { bytesOf, needed, openColumns, readManifest, tableOf } from "./payload.js";
import { drawnSize, showPicture } from "./pictures.js";
import { afterFirstPaint, showTheme, startTheme } from "./theme.js";
import { capital, count, percent, plural } from "./words.js";

const HEAT_SIDE = 96;
const PICTURE_SIDE = 96;
const MORE = 24;

/** @typedef {{ manifest: ComparisonManifest, column: ColumnFinder, test: ComparisonTable }} Comparison */
/** @typedef {{ group: number, true: number | null }} ComparisonView true: a class, or null for all */

/**
 * @param {ComparisonManifest} manifest
 * @param {string} hash
 * @returns {ComparisonView}
 */
export function readComparisonView({ groups, keys }, hash) {
  const words = new URLSearchParams(hash.slice(1));
  const [group, cls] = [groups.indexOf(words.get("group") ?? ""), keys.indexOf(words.get("true") ?? "")];
  return { group: Math.max(0, group), true: cls < 0 ? null : cls };
}

/**
 * @param {ComparisonManifest} manifest
 * @param {ComparisonView} view
 */
export function writeComparisonView({ groups, keys }, view) {
  return `#group=${groups[view.group]}${view.true === null ? "" : `&true=${encodeURIComponent(keys[view.true])}`}`;
}

/**
 * The rows of a view in the order of the data.
 * @param {ComparisonTable} test
 * @param {ComparisonView} view
 */
export function comparedRows({ size, group, label }, view) {
  const rows = [];
  for (let row = 0; row < size; row++) {
    if (group[row] === view.group && (view.true === null || label[row] === view.true)) rows.push(row);
  }
  return rows;
}

/**
 * What one of the runs said of an image, and where it looked.
 * @param {Comparison} comparison
 * @param {number} row
 * @param {"a" | "b"} side
 */
function looked({ manifest, column, test }, row, side) {
  const guess = manifest.names[test[side][row]];
  const picture = make("span", { class: "picture" });
  showPicture(picture, manifest.sprites.test, row, drawnSize(manifest.sprites.test, PICTURE_SIDE));
  const holder = make("div", { class: "looked" }, picture);
  const size = manifest.grids[side];
  const cells = size && gridOf(column, side, row, size);
  const heat = size && cells && heatOf(cells, size, HEAT_SIDE);
  if (heat) {
    const canvas = make("canvas", { role: "img", "aria-label": `Where ${side.toUpperCase()} looked for ${guess}` });
    const opacity = Number(inputOf("f-opacity").value) / 100;
    paintHeat(canvas, heat, needed(column, `colors.${selectOf("f-colors").value}`), { opacity, least: 0 });
    holder.append(canvas);
  }
  return make("figure", { class: test[side][row] === test.label[row] ? "right" : "wrong" }, holder,
    make("figcaption", {}, make("span", { class: "for" }, side.toUpperCase()), make("strong", {}, guess),
      make("br"), `${percent(test[`${side}_sure`][row], 0)} sure`));
}

/**
 * @param {Comparison} comparison
 * @param {number} row
 */
function changedImage(comparison, row) {
  const { manifest, test } = comparison;
  const index = test.index[row];
  const picture = make("span", { "class": "picture", "role": "img", "aria-label": `Test image ${index}` });
  showPicture(picture, manifest.sprites.test, row, drawnSize(manifest.sprites.test, PICTURE_SIDE));
  const original = make("figure", {}, make("div", { class: "looked" }, picture),
    make("figcaption", {}, make("span", { class: "for" }, "label"),
      make("strong", {}, manifest.names[test.label[row]]), make("br"), `image ${index}`));
  return make("li", { "data-index": index }, original, looked(comparison, row, "a"), looked(comparison, row, "b"));
}

function start() {
  /** @type {ComparisonManifest} */
  const manifest = readManifest();
  const column = openColumns(manifest.columns, bytesOf("columns"));
  const comparison = { manifest, column, test: tableOf(manifest.columns, column, "test") };
  let view = readComparisonView(manifest, location.hash);
  let shown = MORE;
  const draw = () => {
    const rows = comparedRows(comparison.test, view);
    const all = manifest.totals[view.group];
    const of = view.true === null && rows.length < all ? ` of ${count(all)}` : "";
    byId("count").textContent = `${plural(rows.length, "image")}${of}`;
    byId("changes-list").replaceChildren(...rows.slice(0, shown).map((row) => changedImage(comparison, row)));
    byId("more").hidden = rows.length <= shown;
    selectOf("f-true").value = String(view.true ?? "");
    tabs.forEach((tab, group) => {
      tab.setAttribute("aria-selected", String(group === view.group));
      tab.tabIndex = group === view.group ? 0 : -1;
    });
  };
  /** @param {Partial<ComparisonView>} part */
  const choose = (part) => {
    view = { ...view, ...part };
    shown = MORE;
    try {
      history.replaceState(null, "", writeComparisonView(manifest, view));
    } catch {
      // the view changes without its address
    }
    draw();
  };
  const tabs = makeTabs(manifest, (group) => choose({ group }));
  fillSelect("f-true", manifest.names, { first: "all", byPlace: true });
  fillSelect("f-colors", manifest.enums.colors);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("input", (event) => {
    if (event.target !== selectOf("f-true")) draw();
    else choose({ true: selectOf("f-true").value === "" ? null : Number(selectOf("f-true").value) });
  });
  byId("more").addEventListener("click", () => {
    shown += MORE;
    draw();
  });
  window.addEventListener("hashchange", () => {
    if (!location.hash.includes("=")) return;
    view = readComparisonView(manifest, location.hash);
    draw();
  });
  startTheme(byId("theme"));
  byId("changes-tool").hidden = false;
  draw();
  document.documentElement.dataset.ready = "";
}

/**
 * Put a tab for each group into the page.
 * @param {ComparisonManifest} manifest
 * @param {(group: number) => void} choose
 */
function makeTabs({ groups, totals }, choose) {
  const tabs = groups.map((name, group) => make("button", {
    "type": "button", "role": "tab", "aria-controls": "changes-list", "click": () => choose(group),
    "keydown": (/** @type {KeyboardEvent} */ event) => {
      const turn = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
      if (!turn) return;
      event.preventDefault();
      const next = (group + turn + groups.length) % groups.length;
      choose(next);
      tabs[next].focus();
    },
  }, `${capital(name)} (${count(totals[group])})`));
  byId("changes-tabs").append(...tabs);
  return tabs;
}

showTheme();
afterFirstPaint(start);
