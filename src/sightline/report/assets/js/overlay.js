// @ts-check
// The picture of the open image, the heat map over it, and the choice of that map.

/** @import { Report } from "./types" */

import { byId, canvasOf, fillSelect, inputOf, make, selectOf } from "./elements.js";
import { gridOf, heatOf, paintHeat, paintScale } from "./heat.js";
import { needed } from "./payload.js";
import { drawnSize, showPicture } from "./pictures.js";
import { isWrong } from "./rows.js";

/** @type {Record<string, string>} */
const MAPS = { none: "no map", predicted: "predicted", true: "true class", difference: "difference" };
const HEAT_SIDE = 192;
const PICTURE_SIDE = 320;

/**
 * Where the map for the true class of each row lies: these maps are kept for the mistakes alone.
 * @param {Report} report
 */
function placesOfTrueMaps(report) {
  let seen = 0;
  return Array.from(report.tables.test.index, (_, row) => (isWrong(report, row) ? seen++ : -1));
}

export class Overlay {
  /** @param {Report} report */
  constructor(report) {
    this.report = report;
    this.size = report.manifest.grids.predicted;
    this.trueMaps = this.size ? placesOfTrueMaps(report) : [];
    this.which = "predicted";
    this.row = 0;
    this.group = byId("d-which");
    this.group.addEventListener("keydown", (event) => this.keyInGroup(event));
    fillSelect("d-colors", report.manifest.enums.colors);
    for (const id of ["d-opacity", "d-least", "d-colors"]) byId(id).addEventListener("input", () => this.draw());
  }

  /**
   * Show the image at a row of the view's split.
   * @param {number} row
   */
  show(row) {
    const { manifest, tables, view } = this.report;
    this.row = row;
    byId("d-maps").hidden = view.set !== "test" || !this.size;
    const box = byId("d-picture");
    const sprites = manifest.sprites[view.set];
    const size = drawnSize(sprites, Math.min(PICTURE_SIDE, box.parentElement?.clientWidth ?? PICTURE_SIDE));
    showPicture(byId("d-image"), sprites, row, size);
    [box.style.width, box.style.height] = size.map((side) => `${side}px`);
    const label = manifest.names[tables[view.set].label[row]];
    box.setAttribute("aria-label", `${byId("d-title").textContent}, label ${label}`);
    this.draw();
  }

  /** The maps of the image: that for the true class and the difference are of mistakes alone. */
  choices() {
    return Object.keys(MAPS).filter((name) => isWrong(this.report, this.row) || !["true", "difference"].includes(name));
  }

  draw() {
    const canvas = canvasOf("d-heat");
    canvas.hidden = true;
    byId("d-said").textContent = "";
    if (this.report.view.set !== "test" || !this.size) return;
    if (!this.choices().includes(this.which)) this.which = "predicted";
    this.drawChoices();
    const colors = needed(this.report.column, `colors.${selectOf("d-colors").value}`);
    paintScale(canvasOf("d-scale"), colors);
    if (this.which === "none") return;
    const [heat, words] = this.chosen(this.size);
    byId("d-said").textContent = words;
    if (!heat) return;
    canvas.hidden = false;
    const [opacity, least] = ["d-opacity", "d-least"].map((id) => Number(inputOf(id).value) / 100);
    paintHeat(canvas, heat, colors, { opacity, least });
  }

  /** Show the choice as it is; the buttons are made anew only where other maps are there, to keep the focus. */
  drawChoices() {
    const names = this.choices();
    const focused = this.group.contains(document.activeElement);
    const shown = [...this.group.querySelectorAll("button")].map((button) => button.dataset.map);
    if (shown.join() !== names.join()) {
      this.group.replaceChildren(...names.map((name) => make("button", {
        type: "button", role: "radio", "data-map": name, click: () => this.choose(name),
      }, MAPS[name])));
    }
    for (const button of this.group.querySelectorAll("button")) {
      const checked = button.dataset.map === this.which;
      button.setAttribute("aria-checked", String(checked));
      button.tabIndex = checked ? 0 : -1;
      if (checked && focused) button.focus();
    }
  }

  /** @param {string} name */
  choose(name) {
    this.which = name;
    this.draw();
  }

  /** Choose the map after the chosen one, round and round. */
  chooseNext() {
    const names = this.choices();
    this.choose(names[(names.indexOf(this.which) + 1) % names.length]);
  }

  /**
   * The keys of a group of radio buttons: arrows choose the neighbour, round and round.
   * @param {KeyboardEvent} event
   */
  keyInGroup(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const names = this.choices();
    const place = names.indexOf(this.which);
    const next = new Map([
      ["ArrowRight", place + 1], ["ArrowDown", place + 1], ["ArrowLeft", place - 1], ["ArrowUp", place - 1],
      ["Home", 0], ["End", names.length - 1],
    ]).get(event.key);
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.choose(names[(next + names.length) % names.length]);
  }

  /**
   * The heat of the chosen map and what it shows, or null and why there is none.
   * @param {[number, number]} size
   * @returns {[heat: Float32Array | null, words: string]}
   */
  chosen(size) {
    const { column, manifest, tables: { test } } = this.report;
    const predicted = gridOf(column, "predicted", this.row, size);
    const truth = isWrong(this.report, this.row) ? gridOf(column, "true", this.trueMaps[this.row], size) : predicted;
    const [guess, label] = [manifest.names[test.predicted[this.row]], manifest.names[test.label[this.row]]];
    /** @type {Record<string, [cells: Float32Array | null, words: string]>} */
    const maps = {
      predicted: [predicted, `What spoke for ${guess}.`],
      true: [truth, `What spoke for ${label}.`],
      difference: [
        predicted && truth && predicted.map((value, k) => value - truth[k]),
        `What spoke for ${guess} rather than ${label}.`,
      ],
    };
    const [cells, words] = maps[this.which];
    if (!cells) return [null, "This map is not finite."];
    const heat = heatOf(cells, size, HEAT_SIDE);
    return [heat, heat ? words : "Nothing here speaks for the class."];
  }
}
