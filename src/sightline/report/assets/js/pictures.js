// @ts-check
// Pictures: each sheet becomes one address in memory, and a picture is a window on it.

/** @import { Report, SplitName, Sprites } from "./types" */

import { make } from "./elements.js";
import { bytesOf } from "./payload.js";

/** @type {Map<string, string>} */
const sheetAddresses = new Map();

/** @param {string} id */
function sheetAddress(id) {
  const known = sheetAddresses.get(id);
  if (known) return known;
  const address = URL.createObjectURL(new Blob([bytesOf(id)], { type: "image/webp" }));
  sheetAddresses.set(id, address);
  return address;
}

const PHOTOGRAPH = 64; // pixels from which a picture is enlarged smoothly, and reduced where it has to be

/**
 * The size at which a picture is drawn where about `wanted` pixels are there for its longer side: of a small one a
 * whole multiple, so that its pixels stay squares; a photograph fills the place.
 * @param {Sprites} sprites
 * @param {number} wanted
 */
export function drawnSize({ width, height }, wanted) {
  const longer = Math.max(width, height);
  if (longer > PHOTOGRAPH) return [width, height].map((side) => Math.max(1, Math.round(side * wanted / longer)));
  const times = Math.max(1, Math.floor(wanted / longer + 0.25));
  return [width * times, height * times];
}

/**
 * @param {HTMLElement} element
 * @param {Sprites} sprites
 * @param {number} row
 * @param {number[]} size
 */
export function showPicture(element, sprites, row, [width, height]) {
  const sheet = Math.floor(row / sprites.per_sheet);
  const place = row % sprites.per_sheet;
  const style = element.style;
  style.width = `${width}px`;
  style.height = `${height}px`;
  style.imageRendering = Math.max(sprites.width, sprites.height) > PHOTOGRAPH ? "auto" : "";
  style.backgroundImage = `url(${sheetAddress(sprites.sheets[sheet])})`;
  style.backgroundSize = `${sprites.across * width}px auto`;
  const [left, top] = [(place % sprites.across) * width, Math.floor(place / sprites.across) * height];
  style.backgroundPosition = `${-left}px ${-top}px`;
}

/**
 * A small picture that leads to its details; a plain mark where the page has no picture of it.
 * @param {Report} report
 * @param {SplitName} split
 * @param {number} index
 * @param {number} [wanted] pixels
 */
export function thumb(report, split, index, wanted = 64) {
  const link = make("a", {
    class: "thumb", href: `#${split === "test" ? "img=" : "set=train&train="}${index}`,
    "data-split": split, "data-index": index,
    "aria-label": `${split === "test" ? "Test" : "Training"} image ${index}`,
  });
  fillThumb(report, link, split, index, wanted);
  return link;
}

/**
 * @param {Report} report
 * @param {HTMLElement} link
 * @param {SplitName} split
 * @param {number} index
 * @param {number} wanted
 */
function fillThumb({ manifest, tables }, link, split, index, wanted) {
  const row = tables[split].row.get(index);
  if (row === undefined) {
    link.classList.add("absent");
    link.removeAttribute("href");
    return;
  }
  link.title = `${link.getAttribute("aria-label")}, label ${manifest.names[tables[split].label[row]]}`;
  const sprites = manifest.sprites[split];
  showPicture(link, sprites, row, drawnSize(sprites, wanted));
}

/**
 * The pictures next to the text are drawn when they come near the window, and all before the page is printed.
 * @param {Report} report
 */
export function startThumbs(report) {
  /** @type {Set<HTMLElement>} */
  const waiting = new Set(document.querySelectorAll("main a.thumb"));
  /** @param {HTMLElement} link */
  const fill = (link) => {
    near.unobserve(link);
    if (!waiting.delete(link)) return;
    const split = link.dataset.split === "train" ? "train" : "test";
    fillThumb(report, link, split, Number(link.dataset.index), link.closest(".evidence:not(.wide)") ? 96 : 64);
  };
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting && target instanceof HTMLElement) fill(target);
    }
  }, { rootMargin: "400px" });
  for (const link of waiting) near.observe(link);
  window.addEventListener("beforeprint", () => [...waiting].forEach(fill));
}
