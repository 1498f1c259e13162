// @ts-check
// The map of the test images: points that are coloured, zoomed into, and drawn around.

/** @import { Column, Report } from "./types" */

import { buttonOf, byId, canvasOf, make, selectOf } from "./elements.js";
import { drawnSize, showPicture } from "./pictures.js";
import { isWrong } from "./rows.js";
import { percent } from "./words.js";

const WHOLE_PLACE = 65535;
const PALETTE = [
  "#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#d67195", "#9d755d", "#8f8a84", "#c9a400",
];
const NEAR = 12; // pixels from the pointer within which a point is meant
const MOST_NAMES = 12;

/** @param {number} k */
const colorOf = (k) => PALETTE[k] ?? `hsl(${Math.round(k * 137.5) % 360} 55% 50%)`;

/**
 * Whether a point lies inside a closed line.
 * @param {[number, number]} point
 * @param {[number, number][]} line
 */
export function inside([x, y], line) {
  let within = false;
  for (let k = 0, before = line.length - 1; k < line.length; before = k++) {
    const [[ax, ay], [bx, by]] = [line[k], line[before]];
    if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  }
  return within;
}

class EmbeddingMap {
  /**
   * @param {Report} report
   * @param {Column} x
   * @param {Column} y
   * @param {{ choose: (rows: Set<number> | null) => void, open: (index: number) => void }} then
   */
  constructor(report, x, y, then) {
    this.report = report;
    this.x = x;
    this.y = y;
    this.then = then;
    this.canvas = canvasOf("map-canvas");
    this.scale = 1;
    /** What is in the middle, in [0, 1]. @type {[number, number]} */
    this.middle = [0.5, 0.5];
    /** @type {[number, number][]} */
    this.line = [];
    this.drawing = false;
    /** @type {{ x: number, y: number, middle: [number, number], moved: boolean } | null} */
    this.dragged = null;
    const { names, enums, slices } = report.manifest;
    /** @type {Record<string, [names: readonly string[], of: (row: number) => number]>} */
    this.colorings = {
      "class": [names, (row) => report.tables.test.label[row]],
      "predicted class": [names, (row) => report.tables.test.predicted[row]],
      "answer": [["right", "wrong"], (row) => Number(isWrong(report, row))],
      "cause": [["none", ...enums.causes], (row) => report.tables.test.cause[row]],
    };
    if (slices.length) {
      this.colorings.slice = [["none", ...slices.map((one) => one.name)], (row) => report.tables.test.slice[row] + 1];
    }
    selectOf("map-color").replaceChildren(...Object.keys(this.colorings).map((name) => make("option", {}, name)));
    this.listen();
  }

  listen() {
    const { canvas } = this;
    selectOf("map-color").addEventListener("input", () => this.draw());
    buttonOf("map-lasso").addEventListener("click", () => this.setDrawing(!this.drawing));
    buttonOf("map-in").addEventListener("click", () => this.zoom(1.6));
    buttonOf("map-out").addEventListener("click", () => this.zoom(1 / 1.6));
    buttonOf("map-reset").addEventListener("click", () => {
      [this.scale, this.middle, this.line] = [1, [0.5, 0.5], []];
      this.then.choose(null);
      this.draw();
    });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointerleave", () => this.tell(undefined));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300), this.place(event));
    }, { passive: false });
    new ResizeObserver(() => this.draw()).observe(canvas);
    new MutationObserver(() => this.draw()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  /** @param {boolean} drawing */
  setDrawing(drawing) {
    this.drawing = drawing;
    buttonOf("map-lasso").setAttribute("aria-pressed", String(drawing));
    this.canvas.classList.toggle("drawing", drawing);
  }

  /** The side of the square that holds all points, in pixels of the page. */
  side() {
    return Math.min(this.canvas.clientWidth, this.canvas.clientHeight) - 16;
  }

  /**
   * Where a point of the map is drawn, in pixels of the page.
   * @param {number} row
   * @returns {[number, number]}
   */
  drawnAt(row) {
    const [side, { clientWidth, clientHeight }] = [this.side() * this.scale, this.canvas];
    return [
      clientWidth / 2 + (this.x[row] / WHOLE_PLACE - this.middle[0]) * side,
      clientHeight / 2 + (this.middle[1] - this.y[row] / WHOLE_PLACE) * side,
    ];
  }

  /**
   * Which place of the map is under a pixel.
   * @param {{ offsetX: number, offsetY: number }} pixel
   * @returns {[number, number]}
   */
  place({ offsetX, offsetY }) {
    const [side, { clientWidth, clientHeight }] = [this.side() * this.scale, this.canvas];
    return [
      this.middle[0] + (offsetX - clientWidth / 2) / side, this.middle[1] - (offsetY - clientHeight / 2) / side,
    ];
  }

  /**
   * @param {number} by
   * @param {[number, number]} [around] stays where it is
   */
  zoom(by, around = this.middle) {
    const scale = Math.min(40, Math.max(1, this.scale * by));
    const kept = this.scale / scale;
    this.middle = [
      around[0] + (this.middle[0] - around[0]) * kept, around[1] + (this.middle[1] - around[1]) * kept,
    ];
    this.scale = scale;
    this.draw();
  }

  draw() {
    const { canvas, report } = this;
    const [width, height, dots] = [canvas.clientWidth, canvas.clientHeight, window.devicePixelRatio || 1];
    if (!width || !height) return;
    canvas.width = Math.round(width * dots);
    canvas.height = Math.round(height * dots);
    const pen = canvas.getContext("2d");
    if (!pen) return;
    pen.scale(dots, dots);
    const [names, of] = this.colorings[selectOf("map-color").value];
    /** Rows by colour: a colour is set once for all its points. @type {Map<number, number[]>} */
    const groups = new Map();
    for (let row = 0; row < report.tables.test.size; row++) {
      const group = groups.get(of(row));
      if (group) group.push(row);
      else groups.set(of(row), [row]);
    }
    const half = Math.min(4, 1.9 + this.scale / 6);
    const ordered = [...groups].sort(([a], [b]) => a - b);
    for (const [color, rows] of ordered) this.points(pen, colorOf(color), rows, half);
    this.outline(pen);
    byId("map-legend").replaceChildren(...ordered.slice(0, MOST_NAMES).map(([color, rows]) => {
      const swatch = make("span", { class: "dot" });
      swatch.style.background = colorOf(color);
      return make("li", {}, swatch, `${names[color] ?? ""} ${rows.length}`);
    }), ...(ordered.length > MOST_NAMES ? [make("li", {}, `and ${ordered.length - MOST_NAMES} more`)] : []));
  }

  /**
   * Draw the points of one colour: dots for right answers, crosses for wrong ones.
   * @param {CanvasRenderingContext2D} pen
   * @param {string} color
   * @param {number[]} rows
   * @param {number} half
   */
  points(pen, color, rows, half) {
    const { clientWidth, clientHeight } = this.canvas;
    pen.fillStyle = pen.strokeStyle = color;
    pen.lineWidth = 1.6;
    pen.globalAlpha = 0.75;
    pen.beginPath();
    for (const row of rows) {
      const [x, y] = this.drawnAt(row);
      if (x < -5 || y < -5 || x > clientWidth + 5 || y > clientHeight + 5) continue;
      if (!isWrong(this.report, row)) pen.fillRect(x - half, y - half, 2 * half, 2 * half);
      else {
        const long = 2 * half + 1;
        pen.moveTo(x - long, y - long);
        pen.lineTo(x + long, y + long);
        pen.moveTo(x - long, y + long);
        pen.lineTo(x + long, y - long);
      }
    }
    pen.globalAlpha = 1;
    pen.stroke();
  }

  /** @param {CanvasRenderingContext2D} pen */
  outline(pen) {
    if (this.line.length < 2) return;
    const [side, { clientWidth, clientHeight }] = [this.side() * this.scale, this.canvas];
    pen.strokeStyle = getComputedStyle(this.canvas).color;
    pen.lineWidth = 1.5;
    pen.beginPath();
    for (const [x, y] of this.line) {
      pen.lineTo(clientWidth / 2 + (x - this.middle[0]) * side, clientHeight / 2 + (this.middle[1] - y) * side);
    }
    pen.closePath();
    pen.stroke();
  }

  /** @param {PointerEvent} event */
  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    if (this.drawing || event.shiftKey) this.line = [this.place(event)];
    this.dragged = { x: event.offsetX, y: event.offsetY, middle: this.middle, moved: false };
  }

  /** @param {PointerEvent} event */
  move(event) {
    const { dragged } = this;
    if (!dragged) {
      this.tell(this.nearest(event));
      return;
    }
    dragged.moved ||= Math.hypot(event.offsetX - dragged.x, event.offsetY - dragged.y) > 4;
    if (this.drawing || event.shiftKey) this.line.push(this.place(event));
    else if (dragged.moved) {
      const side = this.side() * this.scale;
      this.middle = [
        dragged.middle[0] - (event.offsetX - dragged.x) / side, dragged.middle[1] + (event.offsetY - dragged.y) / side,
      ];
    }
    requestAnimationFrame(() => this.draw());
  }

  /** @param {PointerEvent} event */
  up(event) {
    const { dragged, line, report } = this;
    this.dragged = null;
    if (dragged && !dragged.moved) {
      const row = this.nearest(event);
      if (row !== undefined) this.then.open(report.tables.test.index[row]);
      return;
    }
    if (line.length < 3 || !(this.drawing || event.shiftKey)) return;
    const rows = new Set();
    for (let row = 0; row < report.tables.test.size; row++) {
      if (inside([this.x[row] / WHOLE_PLACE, this.y[row] / WHOLE_PLACE], line)) rows.add(row);
    }
    this.setDrawing(false);
    this.then.choose(rows.size ? rows : null);
    this.draw();
  }

  /**
   * The point that is meant by the pointer, if there is one.
   * @param {{ offsetX: number, offsetY: number }} pixel
   */
  nearest({ offsetX, offsetY }) {
    let [best, least] = [/** @type {number | undefined} */ (undefined), NEAR];
    for (let row = 0; row < this.report.tables.test.size; row++) {
      const [x, y] = this.drawnAt(row);
      const far = Math.hypot(x - offsetX, y - offsetY);
      if (far < least) [best, least] = [row, far];
    }
    return best;
  }

  /** @param {number | undefined} row */
  tell(row) {
    const { manifest, tables: { test } } = this.report;
    if (row === undefined) {
      byId("map-about").replaceChildren();
      return;
    }
    const picture = make("span", { class: "picture" });
    showPicture(picture, manifest.sprites.test, row, drawnSize(manifest.sprites.test, 64));
    const [label, guess] = [manifest.names[test.label[row]], manifest.names[test.predicted[row]]];
    const words = isWrong(this.report, row) ? `${guess}, not ${label}` : guess;
    byId("map-about").replaceChildren(
      picture, make("span", {}, `${words}, ${percent(test.confidence[row], 0)} sure, image ${test.index[row]}`));
  }
}

/**
 * Start the map, where the page has one. choose: rows of the test images that were drawn around, or null for all.
 * @param {Report} report
 * @param {{ choose: (rows: Set<number> | null) => void, open: (index: number) => void }} then
 */
export function startMap(report, then) {
  const [x, y] = [report.column("test.map_x"), report.column("test.map_y")];
  if (!document.getElementById("map-tool") || !x || !y) return;
  byId("map-tool").hidden = false;
  new EmbeddingMap(report, x, y, then).draw();
}
