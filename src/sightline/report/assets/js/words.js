// @ts-check
// Numbers as the page writes them.

/**
 * A share in [0, 1] in per cent, with a space that does not break.
 * @param {number} share
 * @param {number} [digits]
 */
export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`;

/** @param {number} number */
export const count = (number) => number.toLocaleString("en-US");

/**
 * @param {number} number
 * @param {string} word
 */
export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/** @param {string} word */
export const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);
