// @ts-check
// Elements of the page: found by their ids, and made of text alone.

/**
 * The element with an id, of the kind that its reader needs.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function elementOf(id, kind) {
  const element = document.getElementById(id);
  if (element instanceof kind) return element;
  throw new Error(`the page has no ${kind.name} with the id ${id}`);
}

/** @param {string} id */
export const byId = (id) => elementOf(id, HTMLElement);
/** @param {string} id */
export const inputOf = (id) => elementOf(id, HTMLInputElement);
/** @param {string} id */
export const selectOf = (id) => elementOf(id, HTMLSelectElement);
/** @param {string} id */
export const buttonOf = (id) => elementOf(id, HTMLButtonElement);
/** @param {string} id */
export const dialogOf = (id) => elementOf(id, HTMLDialogElement);
/** @param {string} id */
export const canvasOf = (id) => elementOf(id, HTMLCanvasElement);

/**
 * Make an element. Names and notes come from files: they reach the page through text and attributes, never as
 * markup. A function among the attributes listens to the event of that name.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number | boolean | null | undefined | ((event: any) => void)>} [attributes]
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
  return element;
}

/**
 * Make a part of a drawing.
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children
 * @returns {SVGElementTagNameMap[K]}
 */
export function makeSvg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * Fill a choice with names; a value is the name itself, or its place among them. first: a choice of none, value "".
 * @param {string} id
 * @param {readonly string[]} names
 * @param {{ first?: string, byPlace?: boolean }} [how]
 */
export function fillSelect(id, names, { first, byPlace = false } = {}) {
  const none = first === undefined ? [] : [make("option", { value: "" }, first)];
  const options = names.map((name, place) => make("option", { value: byPlace ? place : name }, name));
  selectOf(id).replaceChildren(...none, ...options);
}
