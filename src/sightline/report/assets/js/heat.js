// @ts-check
// Heat maps: raw grids, resized and coloured here, in the way of the package's own figures.

/** @import { Column, ColumnFinder, GridSize, Paint } from "./types" */

import { needed } from "./payload.js";

/**
 * The values of one map, or null for a map that is not finite.
 * @param {ColumnFinder} column
 * @param {string} name of the maps
 * @param {number} row
 * @param {GridSize} size
 */
export function gridOf(column, name, row, [height, width]) {
  const scale = needed(column, `${name}.scale`)[row];
  if (Number.isNaN(scale)) return null;
  const cells = needed(column, `${name}.grid`).subarray(row * height * width, (row + 1) * height * width);
  return Float32Array.from(cells, (value) => value * scale);
}

/**
 * ReLU, bilinear with half-pixel centres, division by the largest value.
 * @param {ArrayLike<number>} cells (height * width)
 * @param {GridSize} size
 * @param {number} side
 * @returns {Float32Array | null} (side * side) in [0, 1], or null if nothing is positive
 */
export function heatOf(cells, [height, width], side) {
  const [down, across] = [neighboursOf(height, side), neighboursOf(width, side)];
  /** @param {number} i @param {number} j */
  const at = (i, j) => Math.max(cells[i * width + j], 0);
  const heat = new Float32Array(side * side);
  let top = 0;
  for (let y = 0; y < side; y++) {
    const [y0, y1, v] = down[y];
    for (let x = 0; x < side; x++) {
      const [x0, x1, u] = across[x];
      const [above, below] = [(1 - u) * at(y0, x0) + u * at(y0, x1), (1 - u) * at(y1, x0) + u * at(y1, x1)];
      const value = (1 - v) * above + v * below;
      heat[y * side + x] = value;
      if (value > top) top = value;
    }
  }
  return top > 0 ? heat.map((value) => value / top) : null;
}

/**
 * For each of `side` pixels the two of `length` cells that it lies between, and how near to the second.
 * @param {number} length
 * @param {number} side
 */
function neighboursOf(length, side) {
  return Array.from({ length: side }, (_, place) => {
    const centre = Math.max((place + 0.5) * length / side - 0.5, 0);
    const low = Math.min(Math.floor(centre), length - 1);
    return [low, Math.min(low + 1, length - 1), centre - low];
  });
}

/**
 * Heat as pixels: red, green, blue, opacity.
 * @param {Float32Array} heat in [0, 1]
 * @param {Column} colors 256 colours of three bytes
 * @param {Paint} paint
 */
export function colored(heat, colors, { opacity, least }) {
  const pixels = new Uint8ClampedArray(4 * heat.length);
  heat.forEach((value, place) => {
    const color = 3 * Math.min(255, Math.floor(256 * value));
    const cover = value < least ? 0 : 255 * opacity * value;
    pixels.set([colors[color], colors[color + 1], colors[color + 2], cover], 4 * place);
  });
  return pixels;
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Float32Array} heat (side * side)
 * @param {Column} colors
 * @param {Paint} paint
 */
export function paintHeat(canvas, heat, colors, paint) {
  const side = Math.sqrt(heat.length);
  canvas.width = canvas.height = side;
  canvas.getContext("2d")?.putImageData(new ImageData(colored(heat, colors, paint), side, side), 0, 0);
}

/**
 * The colours from none to most, as a strip of 256 pixels.
 * @param {HTMLCanvasElement} canvas
 * @param {Column} colors
 */
export function paintScale(canvas, colors) {
  const pixels = new ImageData(256, 1);
  for (let k = 0; k < 256; k++) pixels.data.set([...colors.subarray(3 * k, 3 * k + 3), 255], 4 * k);
  canvas.getContext("2d")?.putImageData(pixels, 0, 0);
}
