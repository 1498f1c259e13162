// @ts-check
// The list of decisions under the gallery: undo, export, import.

/** @import { Report } from "./types" */

import { buttonOf, byId, inputOf, make, selectOf } from "./elements.js";
import { asFixes, exported } from "./exchange.js";
import { thumb } from "./pictures.js";
import { keep, readKept } from "./theme.js";
import { plural } from "./words.js";

const MOST_LISTED = 200;

/**
 * Start the list; `changed` is called after every change of a decision.
 * @param {Report} report
 * @param {() => void} changed
 */
export function startDecided(report, changed) {
  const { decisions, manifest: { data, run } } = report;
  if (!data) {
    // What was decided could not be matched to labels that nothing is known of.
    byId("d-decide").hidden = byId("decided-filter").hidden = true;
    byId("decisions").replaceChildren(make("p", { class: "note" },
      "This run kept no fingerprint of its labels, so that decisions could not be matched to them: "
      + "run it again to decide."));
    return;
  }
  const store = `sightline-fixes-${data.labels_sha256?.test ?? run}`;
  const before = readKept(store);
  if (before) decisions.take(before);
  decisions.before = []; // what was decided on another visit is not undone step by step
  decisions.changed = () => {
    keep(store, decisions.made.size ? JSON.stringify(decisions.file()) : null);
    showDecided(report);
    changed();
  };
  showDecided(report);
  startFiles(report);
}

/** @param {Report} report */
function showDecided(report) {
  const { decisions } = report;
  const made = decisions.file().decisions;
  byId("decided-count").textContent = made.length ? plural(made.length, "decision") : "No decisions yet";
  buttonOf("export").disabled = buttonOf("forget").disabled = !made.length;
  byId("decided-list").replaceChildren(...made.slice(0, MOST_LISTED).map((one) => {
    const image = `${one.split === "test" ? "test" : "training"} image ${one.index}`;
    const undo = () => decisions.decide(one.split, one.index, "");
    return make("li", {},
      thumb(report, one.split, one.index, 32),
      make("span", {}, `${decisions.inWords(one)}: ${image}${one.note ? ` (${one.note})` : ""} `),
      make("button", { type: "button", click: undo, "aria-label": `Undo image ${one.index}` }, "Undo"));
  }));
}

/** @param {Report} report */
function startFiles(report) {
  const { decisions } = report;
  /** @param {string} text */
  const say = (text) => { byId("decided-said").textContent = text; };
  const number = () => plural(decisions.made.size, "decision");
  byId("export").addEventListener("click", () => {
    const [name, type, text] = exported(report, selectOf("export-as").value);
    const address = URL.createObjectURL(new Blob([text], { type }));
    make("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    say(`${number()} exported.`);
  });
  byId("forget").addEventListener("click", () => {
    decisions.forgetAll();
    say("All forgotten.");
  });
  const chooser = inputOf("import-file");
  byId("import").addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", async () => {
    const file = chooser.files?.[0];
    if (!file) return;
    const text = await file.text().catch(() => null);
    say(text === null ? "The file cannot be read." : decisions.take(asFixes(report, text)) || `${number()} in all.`);
    chooser.value = "";
  });
}
