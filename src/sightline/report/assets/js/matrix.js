// @ts-check
// The confusion matrix under the keyboard: one tab stop, from which the arrow keys lead to every cell with images.

/** Make each matrix of the page whose cells are links one tab stop. */
export function startMatrices() {
  for (const table of document.querySelectorAll("table.matrix")) {
    if (table instanceof HTMLTableElement) startMatrix(table);
  }
}

/** @param {HTMLTableElement} table */
function startMatrix(table) {
  const links = [...table.rows].map((row) => [...row.cells].map((cell) => cell.querySelector("a")));
  const all = links.flat().filter((link) => link !== null);
  if (!all.length) return;
  for (const link of all) link.tabIndex = -1;
  let [stop] = all;
  stop.tabIndex = 0;
  const box = table.closest(".scroll");
  table.setAttribute("role", "grid");
  table.setAttribute("aria-label", box?.getAttribute("aria-label") ?? "");
  // What scrolls holds a tab stop now, and needs none of its own.
  box?.removeAttribute("tabindex");
  table.addEventListener("focusin", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    if (!link) return;
    stop.tabIndex = -1;
    stop = link;
    stop.tabIndex = 0;
  });
  table.addEventListener("keydown", (event) => {
    if (event.altKey || event.metaKey) return;
    const next = nextCell(links, stop, event.key, event.ctrlKey);
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    next?.focus();
  });
}

/**
 * The link that a key leads to: null at the border, undefined for a key that means nothing here. Cells without
 * images are passed over.
 * @template T
 * @param {(T | null)[][]} cells
 * @param {T} from
 * @param {string} key
 * @param {boolean} control
 * @returns {T | null | undefined}
 */
export function nextCell(cells, from, key, control) {
  const y = cells.findIndex((row) => row.includes(from));
  const x = cells[y].indexOf(from);
  /** @param {(T | null)[]} line */
  const first = (line) => line.find((cell) => cell !== null) ?? null;
  if (control && key === "Home") return first(cells.flat());
  if (control && key === "End") return first(cells.flat().reverse());
  if (control) return undefined;
  const [row, column] = [cells[y], cells.map((line) => line[x] ?? null)];
  switch (key) {
    case "ArrowRight": return first(row.slice(x + 1));
    case "ArrowLeft": return first(row.slice(0, x).reverse());
    case "ArrowDown": return first(column.slice(y + 1));
    case "ArrowUp": return first(column.slice(0, y).reverse());
    case "Home": return first(row);
    case "End": return first([...row].reverse());
    default: return undefined;
  }
}
