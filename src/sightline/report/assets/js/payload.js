// @ts-check
// What the page carries: a manifest, and numbers packed one column after the other.

/** @import { Column, ColumnFinder, ColumnPlace } from "./types" */

import { byId } from "./elements.js";

/**
 * @param {string} text base64
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function decodeBase64(text) {
  const own = /** @type {{ fromBase64?: (text: string) => Uint8Array<ArrayBuffer> }} */ (Uint8Array);
  if (own.fromBase64) return own.fromBase64(text);
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/**
 * The bytes that an element of the page holds as base64.
 * @param {string} id
 */
export const bytesOf = (id) => decodeBase64(byId(id).textContent ?? "");

/** The manifest of the page; Python wrote it, and its type is that of the page. */
export const readManifest = () => JSON.parse(byId("manifest").textContent ?? "");

const KINDS_OF_NUMBERS = {
  u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, i8: Int8Array, i16: Int16Array, i32: Int32Array,
  f32: Float32Array,
};

/**
 * @param {Record<string, ColumnPlace>} places
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @returns {ColumnFinder}
 */
export function openColumns(places, bytes) {
  return (name) => {
    if (!Object.hasOwn(places, name)) return undefined;
    const [kind, start, size] = places[name];
    return new KINDS_OF_NUMBERS[kind](bytes.buffer, bytes.byteOffset + start, size);
  };
}

/**
 * A column that the page cannot do without.
 * @param {ColumnFinder} column
 * @param {string} name
 * @returns {Column}
 */
export function needed(column, name) {
  const found = column(name);
  if (!found) throw new Error(`the page carries no ${name}`);
  return found;
}

/**
 * The columns under one prefix as one table; which they are, the caller's type says.
 * @param {Record<string, ColumnPlace>} places
 * @param {ColumnFinder} column
 * @param {string} prefix
 * @returns {any}
 */
export function tableOf(places, column, prefix) {
  const names = Object.keys(places).filter((name) => name.startsWith(`${prefix}.`));
  const index = needed(column, `${prefix}.index`);
  return {
    ...Object.fromEntries(names.map((name) => [name.slice(prefix.length + 1), column(name)])),
    size: index.length,
    row: new Map(Array.from(index, (image, row) => [image, row])),
  };
}
