// @ts-check
// The view is in the address: #true=cat&pred=dog&sort=loss, #img=2405, #set=train&train=77.

/** @import { Report, ReportManifest, View } from "./types" */

import { SORTS } from "./rows.js";

/** @type {View} */
export const EMPTY_VIEW = {
  set: "test", true: null, pred: null, is: "", kind: "", cause: "", slice: null, done: "", low: 0, high: 100, q: "",
  fix: null, sort: "", flip: false, open: null,
};

/**
 * The view that an address means; what it cannot mean is left out.
 * @param {string} hash
 * @param {ReportManifest} manifest
 * @returns {View}
 */
export function readAddress(hash, { keys, enums }) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  /** @param {string} name @param {readonly string[]} choices */
  const oneOf = (name, choices) => choices.find((choice) => choice === words.get(name)) ?? "";
  /** @param {string} name */
  const whole = (name) => (/^\d+$/.test(words.get(name) ?? "") ? Number(words.get(name)) : null);
  /** @param {string} name */
  const classOf = (name) => {
    const place = keys.indexOf(words.get(name) ?? "");
    return place < 0 ? null : place;
  };
  const set = words.get("set") === "train" || words.has("train") ? "train" : "test";
  const [low, high] = (words.get("conf") ?? "").split("-").map(Number);
  const bounds = low >= 0 && high <= 100 && low <= high ? { low, high } : {};
  return {
    ...EMPTY_VIEW, ...bounds, set,
    true: classOf("true"), pred: classOf("pred"),
    is: oneOf("is", ["wrong", "right"]), done: oneOf("done", ["yes", "no"]),
    kind: oneOf("kind", enums.kinds), cause: oneOf("cause", enums.causes),
    slice: whole("slice"), fix: whole("fix"), q: words.get("q") ?? "",
    sort: oneOf("sort", Object.keys(SORTS[set])), flip: words.get("order") === "reversed",
    open: whole(set === "test" ? "img" : "train"),
  };
}

/**
 * The address of a view, with its #.
 * @param {View} view
 * @param {ReportManifest} manifest
 */
export function writeAddress(view, { keys }) {
  /** @type {string[]} */
  const words = [];
  /** @param {string} name @param {string | number | null} value */
  const add = (name, value) => {
    if (value !== "" && value !== null) words.push(`${name}=${encodeURIComponent(value)}`);
  };
  if (view.set === "train") add("set", "train");
  add("true", view.true === null ? null : keys[view.true]);
  add("pred", view.pred === null ? null : keys[view.pred]);
  add("is", view.is);
  add("kind", view.kind);
  add("cause", view.cause);
  add("slice", view.slice);
  add("done", view.done);
  add("fix", view.fix);
  add("q", view.q);
  if (view.low > 0 || view.high < 100) add("conf", `${view.low}-${view.high}`);
  add("sort", view.sort);
  if (view.flip) add("order", "reversed");
  add(view.set === "test" ? "img" : "train", view.open);
  return `#${words.join("&") || "gallery"}`;
}

/**
 * Change the view and its address; `step`: whether the back key should return to the view before.
 * @param {Report} report
 * @param {Partial<View>} part
 * @param {{ step?: boolean }} [how]
 */
export function goTo(report, part, { step = false } = {}) {
  report.view = { ...report.view, ...part };
  const hash = writeAddress(report.view, report.manifest);
  if (hash === location.hash) return;
  try {
    if (step) history.pushState(null, "", hash);
    else history.replaceState(null, "", hash);
  } catch {
    // Some browsers let no page of a file write its address: the view changes without it.
  }
}
