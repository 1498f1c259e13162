// @ts-check
// What if the model answered only when it is sure, or offered several classes: both live, from the columns.

/** @import { Column, Report } from "./types" */

import { byId, inputOf, make, makeSvg } from "./elements.js";
import { count, percent, plural } from "./words.js";

// A share of 1 among the most probable classes, as payload packs it.
const WHOLE_SHARE = 65535;

/**
 * How many images are answered from a confidence on, and how many of the answers are wrong.
 * @param {{ confidence: Column, label: Column, predicted: Column }} test
 * @param {number} least
 */
export function countAnswers({ confidence, label, predicted }, least) {
  let [answered, wrong] = [0, 0];
  for (let row = 0; row < label.length; row++) {
    if (confidence[row] < least) continue;
    answered += 1;
    if (predicted[row] !== label[row]) wrong += 1;
  }
  return { answered, wrong };
}

/**
 * The sets of classes of at least a probability. sizes: images by the number of classes in their set, the last also
 * of more; covered: images with their label in the set; total: classes of all sets.
 * @param {{ loss: Column, top_share: Column }} test top_share: the largest of each row, in descending order
 * @param {number} least
 */
export function countSets({ loss, top_share: shares }, least) {
  const width = shares.length / loss.length;
  const sizes = new Array(width + 1).fill(0);
  let [covered, total] = [0, 0];
  for (let row = 0; row < loss.length; row++) {
    let inside = 0;
    while (inside < width && shares[row * width + inside] / WHOLE_SHARE >= least) inside += 1;
    sizes[inside] += 1;
    total += inside;
    if (Math.exp(-loss[row]) >= least) covered += 1;
  }
  return { sizes, covered, total };
}

/** @param {Report} report */
export function startThreshold({ tables, manifest }) {
  if (!document.getElementById("threshold-tool")) return;
  const { test } = tables;
  const [answer, offer] = [inputOf("t-answer"), inputOf("t-set")];
  const showAnswers = () => {
    const least = Number(answer.value) / 1000;
    const { answered, wrong } = countAnswers(test, least);
    byId("t-answer-value").textContent = percent(least);
    byId("t-coverage").textContent = `${percent(answered / test.size)} (${count(answered)})`;
    byId("t-risk").textContent = answered ? `${percent(wrong / answered, 2)} (${count(wrong)})` : "–";
    byId("t-rejected").textContent = plural(test.size - answered, "image");
    byId("t-rejected").setAttribute("href", `#conf=0-${Number((100 * least).toFixed(1))}`);
    markCoverage(answered / test.size);
  };
  const showSets = () => {
    const least = Number(offer.value) / 1000;
    const { sizes, covered, total } = countSets(test, least);
    const last = sizes.length - 1;
    const more = manifest.names.length > last;
    byId("t-set-value").textContent = percent(least);
    byId("t-covered").textContent = percent(covered / test.size);
    byId("t-size").textContent = `${more && sizes[last] ? "at least " : ""}${(total / test.size).toFixed(2)}`;
    byId("t-sizes").replaceChildren(...sizes.map((number, k) => {
      const bar = make("span", { class: "share" });
      bar.style.width = `${100 * number / test.size}%`;
      const name = k === 0 ? "none" : k === last && more ? `${k} or more` : String(k);
      return make("li", {}, make("span", { class: "name" }, name), make("span", { class: "track" }, bar),
        make("span", { class: "number" }, percent(number / test.size)));
    }));
  };
  answer.value = "500";
  offer.value = "50";
  answer.addEventListener("input", showAnswers);
  offer.addEventListener("input", showSets);
  byId("threshold-tool").hidden = false;
  showAnswers();
  showSets();
}

/**
 * Move the marker of the risk-coverage curve to a coverage.
 * @param {number} coverage
 */
function markCoverage(coverage) {
  const plot = document.querySelector("#risk-curve");
  if (!(plot instanceof SVGElement)) return;
  const [left, right, top, bottom] = (plot.dataset.plot ?? "").split(" ").map(Number);
  let line = plot.querySelector(".marker");
  if (!line) {
    line = makeSvg("path", { class: "marker" });
    plot.append(line);
  }
  line.setAttribute("d", `M${left + coverage * (right - left)} ${top}V${bottom}`);
}
