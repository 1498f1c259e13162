// @ts-check
// The page of a run: its keys, its address, and the start of all its parts.

/** @import { Report, ReportManifest, View } from "./types" */

import { EMPTY_VIEW, goTo, readAddress } from "./address.js";
import { startDecided } from "./decided.js";
import { Decisions } from "./decisions.js";
import { Details } from "./details.js";
import { startDiagrams } from "./diagrams.js";
import { byId, dialogOf } from "./elements.js";
import { startMap } from "./embedding.js";
import { fillFilters, startFilters } from "./filters.js";
import { startFolds } from "./folds.js";
import { Gallery } from "./gallery.js";
import { startMatrices } from "./matrix.js";
import { bytesOf, openColumns, readManifest, tableOf } from "./payload.js";
import { startThumbs } from "./pictures.js";
import { Selection } from "./selection.js";
import { afterFirstPaint, showTheme, startTheme } from "./theme.js";
import { startThreshold } from "./threshold.js";

/** @returns {Report} */
function openReport() {
  /** @type {ReportManifest} */
  const manifest = readManifest();
  const column = openColumns(manifest.columns, bytesOf("columns"));
  const tables = {
    test: tableOf(manifest.columns, column, "test"), train: tableOf(manifest.columns, column, "train"),
  };
  const decisions = new Decisions(manifest, (split, index) => {
    const [files, row] = [manifest.files?.[split], tables[split].row.get(index)];
    return files && row !== undefined ? { path: files.path[row], hash: files.hash[row] } : {};
  });
  return { manifest, column, tables, decisions, view: EMPTY_VIEW, chosen: null, listed: [], active: 0 };
}

/** An address with "=" is a view of the gallery; any other is a part of the page, which the browser finds by itself. */
const addressIsView = () => location.hash.includes("=");

function start() {
  const report = openReport();
  const gallery = new Gallery(report, () => details.show());
  const details = new Details(report, gallery);
  const selection = new Selection(report, gallery);
  gallery.selection = selection;
  /**
   * Show a view, whether it came from the address or is new.
   * @param {View} view
   */
  const show = (view) => {
    report.view = view;
    fillFilters(report);
    gallery.refresh();
    const row = details.openRow();
    gallery.moveTo(row === undefined ? 0 : report.listed.indexOf(row));
    details.show();
  };
  const showAddress = () => {
    show(readAddress(addressIsView() ? location.hash : "", report.manifest));
    if (!addressIsView() || report.view.open !== null) return;
    byId("gallery").scrollIntoView();
    // Who came by a link goes on with the keys in what it leads to.
    byId("grid").focus({ preventScroll: true });
  };
  startTheme(byId("theme"));
  startFolds();
  startKeys(gallery, details, selection);
  startDiagrams();
  startMatrices();
  startDecided(report, () => {
    if (report.view.done) gallery.refresh();
    else gallery.redraw();
    details.showDecision();
    selection.show();
  });
  startFilters(report, {
    change: (part) => {
      goTo(report, part);
      byId("grid").scrollTop = 0;
      gallery.refresh();
    },
    show: (part) => {
      goTo(report, part);
      show(report.view);
    },
  });
  startThreshold(report);
  /** @param {Set<number> | null} rows */
  const choose = (rows) => {
    report.chosen = rows;
    goTo(report, { ...EMPTY_VIEW });
    show(report.view);
    if (rows) byId("gallery").scrollIntoView();
  };
  byId("drawn").addEventListener("click", () => choose(null));
  startMap(report, {
    choose,
    open: (index) => {
      goTo(report, { ...EMPTY_VIEW, open: index }, { step: true });
      show(report.view);
    },
  });
  startThumbs(report);
  byId("gallery-tool").hidden = false;
  showAddress();
  window.addEventListener("hashchange", () => {
    if (addressIsView()) showAddress();
    else if (dialogOf("viewer").open) dialogOf("viewer").close();
  });
  document.documentElement.dataset.ready = "";
}

/**
 * @param {Gallery} gallery
 * @param {Details} details
 * @param {Selection} selection
 */
function startKeys(gallery, details, selection) {
  const help = dialogOf("help");
  byId("keys").hidden = false;
  byId("keys").addEventListener("click", () => help.showModal());
  byId("help-close").addEventListener("click", () => help.close());
  document.addEventListener("keydown", (event) => {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || help.open || !(target instanceof Element)) return;
    if (target.closest("input:not([type=range]):not([type=checkbox]), select, textarea")) {
      if (event.key === "Escape" && target.id === "f-q") byId("grid").focus();
    } else if (pressed(event, target, gallery, details, selection)) event.preventDefault();
  });
}

/**
 * Take a key; return whether it means something where it was pressed.
 * @param {KeyboardEvent} event
 * @param {Element} target
 * @param {Gallery} gallery
 * @param {Details} details
 * @param {Selection} selection
 */
function pressed({ key, shiftKey }, target, gallery, details, selection) {
  const inside = dialogOf("viewer").open;
  const { actions } = gallery.report.manifest.enums;
  if (key === "?") dialogOf("help").showModal();
  else if (/^[0-9]$/.test(key) && Number(key) <= actions.length && (inside || target.id === "grid")) {
    const action = actions[Number(key) - 1] ?? "";
    if (!inside && selection.rows.size) selection.decide(action);
    else details.decideAndGoOn(action);
  } else if (key === "u" && (inside || target.id === "grid")) selection.undo();
  else if (target.matches("input[type=range], [role=tab]")) return false;
  else if (inside) return details.pressed(key);
  else if (key === "/") {
    byId("gallery").scrollIntoView();
    byId("f-q").focus();
  } else if (key === "j" || key === "k") {
    byId("grid").focus();
    return gallery.pressed(key);
  } else return target.id === "grid" && gallery.pressed(key, shiftKey);
  return true;
}

showTheme();
afterFirstPaint(start);
