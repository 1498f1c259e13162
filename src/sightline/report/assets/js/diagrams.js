// @ts-check
// A diagram says the values of its points: under the pointer, or with the arrow keys once it has the focus.

import { make } from "./elements.js";

/** Let every diagram of the page that has points say their values. */
export function startDiagrams() {
  for (const plot of document.querySelectorAll("svg.plot")) {
    if (plot instanceof SVGSVGElement) startDiagram(plot);
  }
}

/** @param {SVGSVGElement} plot */
function startDiagram(plot) {
  const points = [...plot.querySelectorAll("circle")].map((circle) => ({
    circle, x: Number(circle.getAttribute("cx")), y: Number(circle.getAttribute("cy")),
    text: circle.querySelector("title")?.textContent ?? "",
  }));
  if (!points.length) return;
  const readout = make("p", { class: "readout", "aria-live": "polite" });
  (plot.closest(".scroll") ?? plot).after(readout);
  plot.setAttribute("tabindex", "0");
  let chosen = -1;
  /** @param {number} place */
  const choose = (place) => {
    if (place === chosen) return;
    points[chosen]?.circle.classList.remove("chosen");
    chosen = place;
    points[chosen]?.circle.classList.add("chosen");
    readout.textContent = points[chosen]?.text ?? "";
  };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const scale = plot.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const far = points.map((point) => (point.x - x) ** 2 + (point.y - y) ** 2);
    choose(far.indexOf(Math.min(...far)));
  });
  plot.addEventListener("pointerleave", () => choose(-1));
  plot.addEventListener("blur", () => choose(-1));
  plot.addEventListener("keydown", (event) => {
    const turn = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!turn) return;
    event.preventDefault();
    event.stopPropagation();
    choose(Math.min(points.length - 1, Math.max(0, chosen + turn)));
  });
}
