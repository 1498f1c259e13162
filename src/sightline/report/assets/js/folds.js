// @ts-check
// Sections that are folded until one wants them, and the navigation that says where one is.

/**
 * Open whatever is folded around the element that an address names.
 * @param {string} address with its #
 */
function unfold(address) {
  const target = address.length > 1 ? document.getElementById(decodeURIComponent(address.slice(1))) : null;
  const inner = target?.querySelector(":scope > details.fold");
  if (inner instanceof HTMLDetailsElement) inner.open = true;
  for (let around = target?.closest("details"); around; around = around.parentElement?.closest("details") ?? null) {
    around.open = true;
  }
}

export function startFolds() {
  unfold(location.hash);
  // A link to where one is already changes no address, so the click counts.
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest('a[href^="#"]') : null;
    if (link) unfold(link.getAttribute("href") ?? "");
  });
  window.addEventListener("hashchange", () => unfold(location.hash));
  /** @type {HTMLDetailsElement[]} */
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("main details.fold")].flatMap(
      (one) => (one instanceof HTMLDetailsElement && !one.open ? [one] : []));
    for (const one of closed) one.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
  });
  markCurrent();
}

/** Mark the section that is read: the last one whose heading has passed the upper third of the window. */
function markCurrent() {
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.getAttribute("href"), link]));
  const sections = [...document.querySelectorAll("main > section")];
  let waiting = false;
  const mark = () => {
    waiting = false;
    const passed = sections.filter((one) => one.getBoundingClientRect().top < window.innerHeight / 3);
    const current = links.get(`#${(passed.at(-1) ?? sections[0])?.id}`);
    if (!current || current.hasAttribute("aria-current")) return;
    for (const link of links.values()) link.removeAttribute("aria-current");
    current.setAttribute("aria-current", "true");
    bringIntoSight(current);
  };
  window.addEventListener("scroll", () => {
    if (!waiting) requestAnimationFrame(mark);
    waiting = true;
  }, { passive: true });
  mark();
}

/**
 * Scroll the navigation, and it alone, until one of its links is in sight.
 * @param {Element} link
 */
function bringIntoSight(link) {
  const nav = link.closest("nav");
  if (!nav) return;
  const [box, own] = [nav.getBoundingClientRect(), link.getBoundingClientRect()];
  if (own.left < box.left || own.right > box.right) nav.scrollLeft += own.left - box.left - 20;
  if (own.top < box.top || own.bottom > box.bottom) nav.scrollTop += own.top - box.top - box.height / 2;
}
