// @ts-check
// Images of the gallery that are decided on together: which are selected, and the bar that decides.

/** @import { Gallery } from "./gallery.js" */
/** @import { Change, Report } from "./types" */

import { buttonOf, byId, fillSelect, make, selectOf } from "./elements.js";
import { suggestionOf } from "./rows.js";
import { capital, count, plural } from "./words.js";

export class Selection {
  /**
   * @param {Report} report
   * @param {Gallery} gallery
   */
  constructor(report, gallery) {
    this.report = report;
    this.gallery = gallery;
    /** Rows of the split that is shown. @type {Set<number>} */
    this.rows = new Set();
    this.split = report.view.set;
    const { enums: { actions }, names, data } = report.manifest;
    byId("many").hidden = !data;
    fillSelect("many-label", names, { first: "what is suggested", byPlace: true });
    const choices = [...actions, ""];
    byId("many-actions").replaceChildren(...choices.map((action) => make("button", {
      "type": "button", "data-many": action || "undecided", "click": () => this.decide(action),
    }, action ? capital(action) : "Undecided")));
    buttonOf("many-all").addEventListener("click", () => this.all());
    buttonOf("many-none").addEventListener("click", () => this.none());
    buttonOf("undo").addEventListener("click", () => this.undo());
    this.show();
  }

  /** Forget the selection where the gallery shows other images than before. */
  follow() {
    const { view, listed } = this.report;
    if (this.split !== view.set) this.rows.clear();
    this.split = view.set;
    const there = new Set(listed);
    for (const row of this.rows) if (!there.has(row)) this.rows.delete(row);
    this.show();
  }

  /** @param {number} row */
  toggle(row) {
    if (!this.rows.delete(row)) this.rows.add(row);
    this.show();
  }

  /**
   * Select all from one place of the list to another.
   * @param {number} from
   * @param {number} to
   */
  range(from, to) {
    const { listed } = this.report;
    for (const row of listed.slice(Math.min(from, to), Math.max(from, to) + 1)) this.rows.add(row);
    this.show();
  }

  all() {
    this.rows = new Set(this.report.listed);
    this.show();
  }

  none() {
    this.rows.clear();
    this.show();
  }

  /** @param {string} [said] what was done, in words */
  show(said = "") {
    const { listed, decisions } = this.report;
    const some = this.rows.size;
    byId("many-count").textContent = said || (some ? `${count(some)} selected` : "Nothing selected");
    buttonOf("many-all").textContent = `Select all ${count(listed.length)}`;
    buttonOf("many-all").disabled = !listed.length;
    buttonOf("many-none").disabled = !some;
    buttonOf("undo").disabled = !decisions.before.length;
    for (const button of byId("many-actions").querySelectorAll("button")) button.disabled = !some;
    this.gallery.markSelected();
  }

  /**
   * Decide on all selected images: relabelled they get the chosen class, or what is suggested for each.
   * @param {string} action "" takes decisions back
   */
  decide(action) {
    const { manifest: { data }, tables, view, decisions } = this.report;
    if (!data || !this.rows.size) return;
    const chosen = selectOf("many-label").value;
    /** @type {Change[]} */
    const changes = [];
    for (const row of this.rows) {
      const cls = chosen === "" ? suggestionOf(this.report, view.set, row) : Number(chosen);
      const [index, label] = [tables[view.set].index[row], data.class_names[cls]];
      if (action !== "relabel" || label !== undefined) changes.push({ split: view.set, index, action, label });
    }
    const left = this.rows.size - changes.length;
    decisions.decideAll(changes);
    this.rows.clear();
    const words = plural(changes.length, "image");
    const what = { relabel: "relabelled", keep: "kept", drop: "dropped" }[action] ?? "undecided again";
    this.show(`${words} ${what}${left ? `; nothing is suggested for ${count(left)}` : ""}.`);
  }

  undo() {
    const undone = this.report.decisions.undo();
    this.show(undone ? `The last decision is undone (${plural(undone, "image")}).` : "Nothing to undo.");
  }
}
