// @ts-check
// The gallery: a list of which only the rows in sight are in the page, and the keys that move in it.

/** @import { Report } from "./types" */

import { goTo, writeAddress } from "./address.js";
import { byId, make } from "./elements.js";
import { drawnSize, showPicture } from "./pictures.js";
import { guessOf, isWrong, listedRows, SORTS, sortOf } from "./rows.js";
import { count, plural } from "./words.js";

const TILE_SIDE = 96;
const TEXT_HEIGHT = 62;
const GAP = 12;

export class Gallery {
  /**
   * @param {Report} report
   * @param {() => void} opened called when an image of the list was opened
   */
  constructor(report, opened) {
    this.report = report;
    this.opened = opened;
    /** @type {import("./selection.js").Selection | null} */
    this.selection = null;
    this.drawn = "";
    this.grid = byId("grid");
    this.grid.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.redraw()).observe(this.grid);
  }

  /** Filter, sort and show; the image that was active stays so where it is still listed. */
  refresh() {
    const { report } = this;
    const before = report.listed[report.active];
    report.listed = listedRows(report);
    // Where the active image is gone from the list, the next one has its place.
    const place = report.listed.indexOf(before);
    report.active = place < 0 ? Math.min(report.active, Math.max(0, report.listed.length - 1)) : place;
    this.selection?.follow();
    this.sayCount();
    this.redraw();
  }

  sayCount() {
    const { listed, manifest, tables, view } = this.report;
    const [size, test] = [tables[view.set].size, view.set === "test"];
    const all = test ? manifest.tests : manifest.trainings;
    const kept = test ? "mistakes, what the findings name, and a sample of" : "those that the audit refers to, of";
    const words = plural(size, test ? "test image" : "training image");
    byId("count").textContent = `${count(listed.length)} of ${words}${size < all ? ` (${kept} ${count(all)})` : ""}`;
    const filters = { ...view, sort: "", flip: false, open: null, set: /** @type {const} */ ("test") };
    byId("clear").hidden = writeAddress(filters, manifest) === "#gallery";
    const fix = view.fix === null ? undefined : manifest.fixes[view.fix - 1];
    const { chosen } = this.report;
    byId("drawn").hidden = !chosen || !test;
    if (chosen) byId("drawn").textContent = `Drawn around on the map: ${plural(chosen.size, "image")} ×`;
    byId("chip").hidden = !fix;
    if (fix) byId("chip").textContent = `Fix ${view.fix}: ${fix.title} ×`;
    this.sayNothing(!listed.length);
  }

  /** @param {boolean} empty */
  sayNothing(empty) {
    const split = this.report.view.set === "test" ? "test" : "training";
    const sentence = `No ${split} image fits this search and these filters; clear them to see all.`;
    byId("nothing").textContent = empty ? sentence : "";
    byId("nothing").hidden = !empty;
    this.grid.classList.toggle("empty", empty);
  }

  tileSize() {
    return drawnSize(this.report.manifest.sprites[this.report.view.set], TILE_SIDE);
  }

  rowHeight() {
    return this.tileSize()[1] + TEXT_HEIGHT + GAP;
  }

  across() {
    return Math.max(1, Math.floor((this.grid.clientWidth - 8 + GAP) / (this.tileSize()[0] + GAP)));
  }

  /** Draw anew, also what is in the page already. */
  redraw() {
    this.drawn = "";
    this.draw();
  }

  draw() {
    const { grid, report: { listed } } = this;
    const [columns, height] = [this.across(), this.rowHeight()];
    const rows = Math.ceil(listed.length / columns);
    byId("spacer").style.height = `${rows * height}px`;
    const first = Math.max(0, Math.floor(grid.scrollTop / height) - 1);
    const last = Math.min(rows, Math.ceil((grid.scrollTop + grid.clientHeight) / height) + 1);
    const now = `${first} ${last} ${columns}`;
    if (now !== this.drawn) {
      this.drawn = now;
      const [size, tiles] = [this.tileSize(), byId("tiles")];
      tiles.style.transform = `translateY(${first * height}px)`;
      tiles.style.gridTemplateColumns = `repeat(${columns}, ${size[0]}px)`;
      tiles.style.gridAutoRows = `${height - GAP}px`;
      const shown = listed.slice(first * columns, last * columns);
      tiles.replaceChildren(...shown.map((row, k) => this.tile(row, first * columns + k, size)));
    }
    this.markActive();
    this.markSelected();
  }

  /**
   * @param {number} row
   * @param {number} place in the list
   * @param {number[]} size
   */
  tile(row, place, size) {
    const { manifest, tables, view, decisions, listed } = this.report;
    const [set, test] = [tables[view.set], view.set === "test"];
    const index = set.index[row];
    const [label, guess] = [manifest.names[set.label[row]], manifest.names[guessOf(this.report, view.set, row)]];
    const wrong = test ? isWrong(this.report, row) : set.label[row] !== set.suggested[row];
    const value = this.sortedBy(row);
    const made = decisions.of(view.set, index);
    const cause = test ? manifest.enums.causes[tables.test.cause[row] - 1] : undefined;
    const words = [
      `Image ${index}`, test ? `predicted ${guess}` : "", `label ${label}`,
      !test && wrong ? `suggested ${guess}` : "", value, cause, made ? decisions.inWords(made) : "",
    ];
    const picture = make("span", { class: "picture" });
    showPicture(picture, manifest.sprites[view.set], row, size);
    return make("div", {
      class: `tile${wrong ? " wrong" : ""}`, role: "option", id: `tile-${view.set}-${index}`, "data-index": index,
      "aria-setsize": listed.length, "aria-posinset": place + 1, "aria-label": words.filter(Boolean).join(", "),
      title: cause, click: (event) => this.clicked(event, row, place),
    },
    picture, make("span", { class: "name" }, test ? guess : label),
    make("span", { class: "not" }, !wrong ? "" : test ? `not ${label}` : `${guess}?`),
    make("span", { class: "value" }, value), made && make("span", { class: "mark" }, decisions.inShort(made)));
  }

  /**
   * A click opens an image; with Shift it selects all from the active one on, with Ctrl or Cmd one more.
   * @param {MouseEvent} event
   * @param {number} row
   * @param {number} place
   */
  clicked(event, row, place) {
    const many = event.shiftKey || event.ctrlKey || event.metaKey;
    if (!this.selection || !many) {
      this.open(place);
      return;
    }
    event.preventDefault();
    if (event.shiftKey) this.selection.range(this.report.active, place);
    else this.selection.toggle(row);
    this.moveTo(place);
    this.grid.focus({ preventScroll: true });
  }

  markSelected() {
    const { tables, view } = this.report;
    for (const tile of this.grid.querySelectorAll(".tile")) {
      const row = tables[view.set].row.get(Number(tile.getAttribute("data-index")));
      const chosen = row !== undefined && Boolean(this.selection?.rows.has(row));
      tile.setAttribute("aria-checked", String(chosen));
    }
  }

  /**
   * The value of a row that the list is sorted by, in words.
   * @param {number} row
   */
  sortedBy(row) {
    const { column, view } = this.report;
    const value = column(`${view.set}.${sortOf(view)}`)?.[row] ?? NaN;
    return Number.isNaN(value) ? "not known" : SORTS[view.set][sortOf(view)][1](value);
  }

  markActive() {
    const { listed, active, tables, view } = this.report;
    for (const old of this.grid.querySelectorAll("[aria-selected]")) old.removeAttribute("aria-selected");
    const row = listed[active];
    const option = row === undefined ? null
      : document.getElementById(`tile-${view.set}-${tables[view.set].index[row]}`);
    if (!option) {
      this.grid.removeAttribute("aria-activedescendant");
      return;
    }
    option.setAttribute("aria-selected", "true");
    this.grid.setAttribute("aria-activedescendant", option.id);
  }

  /**
   * Make the image at a place of the list the active one, and bring it into sight.
   * @param {number} place
   */
  moveTo(place) {
    const { grid, report } = this;
    if (!report.listed.length) return;
    report.active = Math.min(report.listed.length - 1, Math.max(0, place));
    const height = this.rowHeight();
    const top = Math.floor(report.active / this.across()) * height;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top + height > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + height - grid.clientHeight;
    this.draw();
  }

  /**
   * Open the image at a place of the list.
   * @param {number} [place]
   */
  open(place = this.report.active) {
    const { report } = this;
    if (report.listed[place] === undefined) return;
    report.active = place;
    this.markActive();
    goTo(report, { open: report.tables[report.view.set].index[report.listed[place]] }, { step: true });
    this.opened();
  }

  /**
   * Take a key that was pressed in the list; return whether it means something here.
   * @param {string} key
   * @param {boolean} [shift] moving then selects what it passes
   */
  pressed(key, shift = false) {
    const { active, listed } = this.report;
    const across = this.across();
    const page = across * Math.max(1, Math.floor(this.grid.clientHeight / this.rowHeight()));
    const places = new Map([
      ["ArrowRight", active + 1], ["ArrowLeft", active - 1], ["j", active + 1], ["k", active - 1],
      ["ArrowDown", active + across], ["ArrowUp", active - across],
      ["PageDown", active + page], ["PageUp", active - page], ["Home", 0], ["End", listed.length - 1],
    ]);
    const place = places.get(key);
    if (place !== undefined) {
      this.moveTo(place);
      if (shift) this.selection?.range(active, this.report.active);
    } else if (key === "x" && listed[active] !== undefined) {
      this.selection?.toggle(listed[active]);
      this.moveTo(active + 1);
    } else if (key === "a") this.selection?.all();
    else if (key === "Escape") this.selection?.none();
    else if (key === "Enter" || key === " ") this.open();
    else return false;
    return true;
  }
}
