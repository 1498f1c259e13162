// @ts-check
// Decisions about images, and the file of them that `sightline run --fixes` reads.

/** @import { Change, Decision, FixesFile, ReportManifest, SplitName } from "./types" */

import { capital } from "./words.js";

const LONGEST_NOTE = 500;

/** What was decided, at most one decision for each image. */
export class Decisions {
  /**
   * @param {ReportManifest} manifest
   * @param {(split: SplitName, index: number) => { path?: string, hash?: string }} [fileOf] what an image is known
   *   by in data that has grown
   */
  constructor(manifest, fileOf = () => ({})) {
    this.manifest = manifest;
    this.fileOf = fileOf;
    /** @type {Map<string, Decision>} */
    this.made = new Map();
    /** What undoes each step, the last one last. @type {Change[][]} */
    this.before = [];
    this.changed = () => {};
  }

  /**
   * @param {SplitName} split
   * @param {number} index
   */
  of(split, index) {
    return this.made.get(`${split} ${index}`);
  }

  /**
   * Decide what becomes of an image; the action "" takes a decision back. Without a note the last one stays.
   * @param {SplitName} split
   * @param {number} index
   * @param {string} action
   * @param {{ label?: string, note?: string }} [more] label: the class to relabel to
   */
  decide(split, index, action, { label, note } = {}) {
    this.decideAll([{ split, index, action, label, note }]);
  }

  /**
   * Decide on several images in one step, which is undone as one.
   * @param {Change[]} changes
   */
  decideAll(changes) {
    if (!changes.length) return;
    this.before.push(changes.map(({ split, index }) => this.of(split, index) ?? { split, index, action: "" }));
    this.apply(changes);
  }

  /** Undo the last step; return how many images it was about. */
  undo() {
    const changes = this.before.pop() ?? [];
    this.apply(changes);
    return changes.length;
  }

  /** @param {Change[]} changes */
  apply(changes) {
    for (const { split, index, action, label, note } of changes) {
      if (!action) this.made.delete(`${split} ${index}`);
      else this.put({ split, index, action, label, note: note ?? this.of(split, index)?.note ?? "" });
    }
    this.changed();
  }

  /** @param {Decision} decision */
  put({ split, index, action, label, note }) {
    const relabelled = action === "relabel" ? { label } : {};
    this.made.set(`${split} ${index}`, { split, index, action, ...relabelled, note: note.slice(0, LONGEST_NOTE) });
  }

  forgetAll() {
    this.decideAll([...this.made.values()].map(({ split, index }) => ({ split, index, action: "" })));
  }

  /**
   * The content of fixes.json, by split and in order of the images.
   * @returns {FixesFile}
   */
  file() {
    const { data, enums } = this.manifest;
    const decisions = [...this.made.values()].sort(
      (a, b) => (a.split === b.split ? a.index - b.index : a.split < b.split ? -1 : 1))
      .map((one) => ({ ...one, ...this.fileOf(one.split, one.index) }));
    return { format: enums.fixes_format, version: enums.fixes_version, data, decisions };
  }

  /**
   * Add the decisions of a file, all or none of them.
   * @param {string} text
   * @returns {string} why they cannot be taken; empty once they are
   */
  take(text) {
    const { data, enums } = this.manifest;
    let file;
    try {
      file = JSON.parse(text);
    } catch {
      return "This is not JSON; choose a fixes.json that a report exported.";
    }
    const known = file?.format === enums.fixes_format && Number.isInteger(file.version)
      && file.version >= 1 && file.version <= enums.fixes_version;
    if (!known || !Array.isArray(file.decisions)) {
      return `This is not a fixes.json of version ${enums.fixes_version}; choose one that a report exported.`;
    }
    if (["train", "test"].some((split) => labelsOf(file.data, split) !== labelsOf(data, split))) {
      return "These decisions are about other data: the labels differ; open the report that they came from.";
    }
    const bad = file.decisions.findIndex((/** @type {unknown} */ one) => !this.fits(one));
    if (bad >= 0) {
      const which = `Decision ${bad + 1} of ${file.decisions.length}`;
      return `${which} fits no image, action or class of this run; none was taken.`;
    }
    this.decideAll(file.decisions.map((/** @type {Decision} */ one) => ({ ...one, note: one.note ?? "" })));
    return "";
  }

  /**
   * Whether something read from a file is a decision about an image that there is.
   * @param {any} one
   */
  fits(one) {
    const { tests, trainings, data, enums } = this.manifest;
    const size = one?.split === "test" ? tests : one?.split === "train" ? trainings : 0;
    const there = Number.isInteger(one?.index) && one.index >= 0 && one.index < size;
    return there && enums.actions.includes(one.action) && typeof (one.note ?? "") === "string"
      && (one.action !== "relabel" || Boolean(data?.class_names.includes(one.label)));
  }

  /** What a tile says of it: the new class, or the action. @param {Decision} decision */
  inShort(decision) {
    const { data, names } = this.manifest;
    if (decision.action !== "relabel") return capital(decision.action);
    return `→ ${names[data?.class_names.indexOf(decision.label ?? "") ?? -1] ?? ""}`;
  }

  /** @param {Decision} decision */
  inWords({ action, label }) {
    const { data, names } = this.manifest;
    if (action !== "relabel") return capital(action);
    return `Relabel to ${names[data?.class_names.indexOf(label ?? "") ?? -1] ?? ""}`;
  }
}

/**
 * What has to be equal for decisions to be about the same labels.
 * @param {any} data a fingerprint, or whatever a file has in its place
 * @param {string} split
 */
function labelsOf(data, split) {
  return data?.labels_sha256?.[split];
}
