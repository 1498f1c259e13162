// @ts-check
// Which rows the gallery lists, and in which order: functions of columns and of a view.

/** @import { Column, Report, SplitName, View } from "./types" */

import { percent } from "./words.js";

/**
 * For each split: the columns that it can be sorted by, whether the smallest comes first (1) or the largest (-1),
 * and how a value is written.
 * @type {Record<SplitName, Record<string, [turn: 1 | -1, written: (value: number) => string]>>}
 */
export const SORTS = {
  test: {
    loss: [-1, (value) => `loss ${value.toFixed(2)}`],
    margin: [1, (value) => `margin ${value.toFixed(2)}`],
    ambiguity: [-1, (value) => `ambiguity ${value.toFixed(2)}`],
    label_quality: [1, (value) => `quality ${value.toFixed(2)}`],
    confidence: [-1, (value) => `${percent(value, 0)} sure`],
    index: [1, (value) => `image ${value}`],
  },
  train: {
    label_quality: [1, (value) => `quality ${value.toFixed(2)}`],
    aum: [1, (value) => `AUM ${value.toFixed(2)}`],
    forgetting: [-1, (value) => (value < 0 ? "never learned" : `forgotten ${value}×`)],
    p_mean: [1, (value) => `mean p ${value.toFixed(2)}`],
    p_std: [-1, (value) => `spread of p ${value.toFixed(2)}`],
    index: [1, (value) => `image ${value}`],
  },
};

/** @param {SplitName} split */
export const firstSort = (split) => Object.keys(SORTS[split])[0];

/** @param {View} view */
export const sortOf = (view) => view.sort || firstSort(view.set);

/**
 * What the model says of an image: its answer on a test image, its suggestion for a training image.
 * @param {Report} report
 * @param {SplitName} split
 * @param {number} row
 */
export function guessOf({ tables }, split, row) {
  return (split === "test" ? tables.test.predicted : tables.train.suggested)[row];
}

/**
 * The class that a label may be changed to: what the audit suggests, or what the model says.
 * @param {Report} report
 * @param {SplitName} split
 * @param {number} row
 */
export function suggestionOf(report, split, row) {
  const { suggested, label } = report.tables[split];
  return suggested[row] >= 0 && suggested[row] !== label[row] ? suggested[row] : guessOf(report, split, row);
}

/**
 * @param {Report} report
 * @param {number} row of the test images
 */
export const isWrong = ({ tables }, row) => tables.test.predicted[row] !== tables.test.label[row];

/**
 * The rows that pass every filter of the view, in the order of its sort.
 * @param {Report} report
 */
export function listedRows(report) {
  const { column, view } = report;
  const sort = sortOf(view);
  const turn = SORTS[view.set][sort][0] * (view.flip ? -1 : 1);
  return sortedRows(passingRows(report), column(`${view.set}.${sort}`) ?? new Float32Array(), turn);
}

/** @param {Report} report */
export function passingRows(report) {
  const { manifest, view, decisions } = report;
  const set = report.tables[view.set];
  const words = view.q.trim().toLowerCase();
  const named = manifest.names.map((name) => name.toLowerCase().includes(words));
  const number = /^#?\d+$/.test(words) ? Number(words.replace("#", "")) : null;
  const fix = view.fix === null ? undefined : manifest.fixes[view.fix - 1];
  const chosen = fix && new Set(fix.split === view.set ? fix.images : []);
  const rows = [];
  for (let row = 0; row < set.size; row++) {
    const [index, label, guess] = [set.index[row], set.label[row], guessOf(report, view.set, row)];
    if (view.true !== null && label !== view.true) continue;
    if (view.pred !== null && guess !== view.pred) continue;
    if (chosen && !chosen.has(index)) continue;
    if (view.set === "test" && report.chosen && !report.chosen.has(row)) continue;
    if (view.done && Boolean(decisions.of(view.set, index)) !== (view.done === "yes")) continue;
    if (words && !(named[label] || named[guess] || index === number)) continue;
    if (view.set === "test" && !passesTest(report, row)) continue;
    rows.push(row);
  }
  return rows;
}

/**
 * @param {Report} report
 * @param {number} row
 */
function passesTest(report, row) {
  const { view, tables: { test }, manifest: { enums } } = report;
  if (view.is && (view.is === "wrong") !== isWrong(report, row)) return false;
  if (view.kind && enums.kinds[test.difficulty[row] - 1] !== view.kind) return false;
  if (view.cause && enums.causes[test.cause[row] - 1] !== view.cause) return false;
  if (view.slice !== null && test.slice[row] !== view.slice) return false;
  const sure = 100 * test.confidence[row];
  return sure >= view.low && (sure < view.high || view.high === 100);
}

/**
 * Sort rows in place by their values; what is not known comes last, and equals stay in the order of the data.
 * @param {number[]} rows
 * @param {Column} values
 * @param {number} turn 1 for the smallest first, -1 for the largest
 */
export function sortedRows(rows, values, turn) {
  /** @param {number} row */
  const rank = (row) => (Number.isNaN(values[row]) ? Infinity : turn * values[row]);
  return rows.sort((a, b) => {
    const [first, second] = [rank(a), rank(b)];
    return first === second ? a - b : first - second;
  });
}
