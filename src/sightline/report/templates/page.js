// The ground: elements made of text alone, the theme, and what is kept from visit to visit.

const byId = (id) => document.getElementById(id);

// Names and notes come from files: they reach the page through textContent and attributes, never as markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`;
const count = (number) => number.toLocaleString("en-US");
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

// A page opened from disk may be refused a store: it then forgets, and works all the same.
const kept = {
  read(key) {
    try { return localStorage.getItem(key); } catch { return null; }
  },
  write(key, value) {
    try {
      if (value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, value);
    } catch { /* nothing depends on it */ }
  },
};

// The page is painted before its data is opened; the theme alone is there from the start.
function afterFirstPaint(start) {
  const soon = () => requestAnimationFrame(() => setTimeout(start));
  document.addEventListener("DOMContentLoaded", soon);
}

const THEMES = ["auto", "light", "dark"];
let theme = kept.read("sightline-theme");
if (!THEMES.includes(theme)) theme = "auto";

function showTheme() {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
showTheme();

function startTheme() {
  const button = byId("theme");
  const name = () => { button.textContent = `Theme: ${theme}`; };
  name();
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    kept.write("sightline-theme", theme === "auto" ? null : theme);
    showTheme();
    name();
  });
}

// A diagram says the values of its points: under the pointer, or with the arrow keys once it has the focus.
function startDiagrams() {
  for (const plot of document.querySelectorAll("svg.plot")) {
    const points = [...plot.querySelectorAll("circle")].map((circle) => ({
      circle, x: +circle.getAttribute("cx"), y: +circle.getAttribute("cy"),
      text: circle.querySelector("title").textContent,
    }));
    if (!points.length) continue;
    const said = make("p", { class: "readout", "aria-live": "polite" });
    (plot.closest(".scroll") ?? plot).after(said);
    plot.setAttribute("tabindex", "0");
    let chosen = -1;
    const choose = (place) => {
      if (place === chosen) return;
      points[chosen]?.circle.classList.remove("chosen");
      chosen = place;
      points[chosen]?.circle.classList.add("chosen");
      said.textContent = points[chosen]?.text ?? "";
    };
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const scale = plot.viewBox.baseVal.width / box.width;
      const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      let nearest = 0;
      const far = (point) => (point.x - x) ** 2 + (point.y - y) ** 2;
      points.forEach((point, place) => { if (far(point) < far(points[nearest])) nearest = place; });
      choose(nearest);
    });
    plot.addEventListener("pointerleave", () => choose(-1));
    plot.addEventListener("blur", () => choose(-1));
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      choose(Math.min(points.length - 1, Math.max(0, chosen + step)));
    });
  }
}
