// @ts-check
// Light or dark, what is kept from visit to visit, and when the rest of the page starts.

// A page opened from disk may be refused a store: it then forgets, and works all the same.
/**
 * @param {string} key
 * @returns {string | null}
 */
export function readKept(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/**
 * @param {string} key
 * @param {string | null} value null forgets
 */
export function keep(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // nothing depends on it
  }
}

/**
 * The page is painted before its data is opened; the theme alone is there from the start.
 * @param {() => void} start
 */
export function afterFirstPaint(start) {
  document.addEventListener("DOMContentLoaded", () => requestAnimationFrame(() => setTimeout(start)));
}

const THEMES = ["auto", "light", "dark"];
const THEME_KEY = "sightline-theme";

function keptTheme() {
  const theme = readKept(THEME_KEY) ?? "";
  return THEMES.includes(theme) ? theme : "auto";
}

/** @param {string} theme */
export function showTheme(theme = keptTheme()) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

/** @param {HTMLElement} button */
export function startTheme(button) {
  let theme = keptTheme();
  const name = () => { button.textContent = `Theme: ${theme}`; };
  name();
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    keep(THEME_KEY, theme === "auto" ? null : theme);
    showTheme(theme);
    name();
  });
}
