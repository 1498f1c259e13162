// @ts-check
// Decisions in the forms that other tools read, and a table of them back.

/** @import { Decision, Report } from "./types" */

import { suggestionOf } from "./rows.js";

const COLUMNS = ["split", "index", "path", "label", "action", "new_label", "note"];

/**
 * A table as CSV; no cell is a formula to a spreadsheet.
 * @param {(string | number)[][]} rows
 */
function csv(rows) {
  /** @param {string | number} value */
  const cell = (value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return `${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

/**
 * The cells of a CSV table, by row.
 * @param {string} text
 */
function cellsOf(text) {
  const rows = [[""]];
  let quoted = false;
  const letters = text.replace(/^\uFEFF/, "");
  for (let k = 0; k < letters.length; k++) {
    const [letter, row] = [letters[k], rows[rows.length - 1]];
    if (quoted && letter === '"' && letters[k + 1] === '"') row[row.length - 1] += letters[k++];
    else if (letter === '"') quoted = !quoted;
    else if (quoted || !",\r\n".includes(letter)) row[row.length - 1] += letter;
    else if (letter === ",") row.push("");
    else if (letter === "\n") rows.push([""]);
  }
  const plain = rows.map((row) => row.map((cell) => cell.replace(/^'(?=[=+\-@\t\r])/, "")));
  return plain.filter((row) => row.length > 1 || row[0]);
}

/**
 * The name, the type and the text of a file in one of the forms of the page's choice.
 * @param {Report} report
 * @param {string} form
 * @returns {[name: string, type: string, text: string]}
 */
export function exported(report, form) {
  const file = report.decisions.file();
  const rows = file.decisions.map((one) => tableRow(report, one));
  if (form === "csv") return ["fixes.csv", "text/csv", csv([COLUMNS, ...rows])];
  if (form === "cleanlab") return ["cleanlab.csv", "text/csv", csv(cleanlabRows(report))];
  if (form === "label-studio") {
    return ["tasks.json", "application/json", JSON.stringify(file.decisions.map((one) => task(report, one)), null, 2)];
  }
  return ["fixes.json", "application/json", JSON.stringify(file, null, 2)];
}

/**
 * @param {Report} report
 * @param {Decision} one
 */
function labelOf({ manifest: { data }, tables }, one) {
  const row = tables[one.split].row.get(one.index);
  return row === undefined ? "" : data?.class_names[tables[one.split].label[row]] ?? "";
}

/**
 * @param {Report} report
 * @param {Decision} one
 */
function tableRow(report, one) {
  return [one.split, one.index, one.path ?? "", labelOf(report, one), one.action, one.label ?? "", one.note];
}

/**
 * A task of Label Studio: the picture, what is suggested as a prediction, what was decided as an annotation.
 * @param {Report} report
 * @param {Decision} one
 */
function task(report, one) {
  const { manifest: { data, run }, tables } = report;
  const row = tables[one.split].row.get(one.index);
  const suggested = row === undefined ? undefined : data?.class_names[suggestionOf(report, one.split, row)];
  /** @param {string} name */
  const choice = (name) => [{ from_name: "label", to_name: "image", type: "choices", value: { choices: [name] } }];
  const decided = one.action === "relabel" ? one.label : one.action === "keep" ? labelOf(report, one) : undefined;
  return {
    data: {
      image: one.path || `${one.split}/${one.index}`, split: one.split, index: one.index, label: labelOf(report, one),
    },
    predictions: suggested === undefined ? [] : [{ model_version: run, result: choice(suggested) }],
    annotations: decided === undefined ? [] : [{ result: choice(decided) }],
    meta: { action: one.action, note: one.note },
  };
}

/**
 * The columns of cleanlab's label issues, for all images of the split that is shown.
 * @param {Report} report
 * @returns {(string | number)[][]}
 */
function cleanlabRows(report) {
  const { manifest: { data, files }, tables, view, decisions } = report;
  const [set, split, names] = [tables[view.set], view.set, data?.class_names ?? []];
  const rows = Array.from({ length: set.size }, (_, row) => {
    const made = decisions.of(split, set.index[row]);
    const issue = made ? made.action !== "keep" : set.suggested[row] >= 0 && set.suggested[row] !== set.label[row];
    const better = made?.label ?? names[suggestionOf(report, split, row)] ?? "";
    return [
      set.index[row], files?.[split]?.path[row] ?? "", issue ? "True" : "False",
      Number.isNaN(set.label_quality[row]) ? "" : set.label_quality[row].toFixed(4), names[set.label[row]], better,
    ];
  });
  return [["index", "path", "is_label_issue", "label_quality", "given_label", "predicted_label"], ...rows];
}

/**
 * The text of a fixes.json for whatever came: it is one, or a table, or what cleanlab or Label Studio wrote.
 * @param {Report} report
 * @param {string} text
 */
export function asFixes(report, text) {
  if (/^\s*\{/.test(text)) return text;
  const { manifest: { data, enums } } = report;
  const decisions = /^\s*\[/.test(text) ? decisionsOfTasks(text) : decisionsOfTable(report, text);
  if (!decisions) return text;
  // A table has no fingerprint: its labels say whether it is about this data.
  const other = decisions.some((one) => one.given && one.given !== (labelOf(report, one) || one.given));
  const taken = decisions.map(({ given, ...one }) => one);
  return JSON.stringify({
    format: enums.fixes_format, version: enums.fixes_version, data: other ? null : data, decisions: taken,
  });
}

/**
 * The decisions of a table; null for one of other columns.
 * @param {Report} report
 * @param {string} text
 * @returns {(Decision & { given: string })[] | null}
 */
function decisionsOfTable({ view }, text) {
  const [head = [], ...rows] = cellsOf(text);
  /** @param {string[]} row @param {string} name */
  const cell = (row, name) => row[head.indexOf(name)] ?? "";
  /** @param {string[]} row */
  const index = (row) => Number(cell(row, "index") || NaN);
  if (["index", "is_label_issue", "given_label", "predicted_label"].every((name) => head.includes(name))) {
    return rows.filter((row) => /^true$/i.test(cell(row, "is_label_issue"))).map((row) => ({
      split: view.set, index: index(row), action: "relabel", label: cell(row, "predicted_label"), note: "",
      given: cell(row, "given_label"),
    }));
  }
  if (!["split", "index", "action"].every((name) => head.includes(name))) return null;
  return rows.map((row) => ({
    split: cell(row, "split") === "train" ? "train" : "test", index: index(row), action: cell(row, "action"),
    ...(cell(row, "new_label") ? { label: cell(row, "new_label") } : {}), note: cell(row, "note"),
    given: cell(row, "label"),
  }));
}

/**
 * The decisions of tasks that were annotated in Label Studio; null for other JSON.
 * @param {string} text
 * @returns {(Decision & { given: string })[] | null}
 */
function decisionsOfTasks(text) {
  /** @type {any} */
  let tasks;
  try {
    tasks = JSON.parse(text);
  } catch {
    return null;
  }
  const found = [];
  for (const { data, annotations, meta } of tasks) {
    const chosen = annotations?.[0]?.result?.[0]?.value?.choices?.[0];
    const action = chosen === undefined ? meta?.action : chosen === data?.label ? "keep" : "relabel";
    if (!data || !action) return null;
    found.push({
      split: data.split, index: data.index, action, ...(action === "relabel" ? { label: chosen } : {}),
      note: meta?.note ?? "", given: data.label ?? "",
    });
  }
  return found.length ? found : null;
}
