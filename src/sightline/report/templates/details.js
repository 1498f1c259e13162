// One image: where the model looked, what it thought, what is like it, and what becomes of it.

const MAPS = { none: "no map", predicted: "predicted", true: "true class", difference: "difference" };
const HEAT_SIDE = 192;
const CAUSE_WORDS = {
  "label suspect": (row) => `The label is probably wrong: suspicion ${tables.test.suspicion[row].toFixed(2)}, ${manifest.names[tables.test.suggested[row]]} suggested.`,
  "leaked twin": (row) => `A near-duplicate is in the training set, image ${tables.test.twin[row]}: its label decides here.`,
  shortcut: (row) => `The model follows a shortcut. ${manifest.slices[tables.test.slice[row]]?.evidence ?? ""}`,
  ambiguous: (row) => `The picture leaves the answer open: ambiguity ${tables.test.ambiguity[row].toFixed(2)} of 1.`,
  "confused pair": (row) => `${manifest.names[tables.test.label[row]]} and ${manifest.names[tables.test.predicted[row]]} are often taken for each other.`,
  unexplained: () => "None of the known causes fits: look for yourself.",
};
const wrongBefore = manifest.grids.predicted ? Uint32Array.from(tables.test.index, () => 0) : null;
if (wrongBefore) { // the maps for the true class are kept for the mistakes alone
  for (let row = 0, seen = 0; row < tables.test.size; row++) { wrongBefore[row] = seen; seen += isWrong(row); }
}
const looks = { which: "predicted", opacity: 0.55, least: 0, name: "inferno" };

function openRow() {
  return view.open === null ? undefined : tables[view.set].row.get(view.open);
}

function showDetails() {
  const dialog = byId("viewer");
  const row = openRow();
  if (row === undefined) {
    if (dialog.open) dialog.close();
    return;
  }
  const test = view.set === "test";
  const set = tables[view.set];
  byId("d-title").textContent = `${test ? "Test" : "Training"} image ${view.open}`;
  const place = listed.indexOf(row);
  byId("d-place").textContent = place < 0 ? "" : `${count(place + 1)} of ${count(listed.length)}`;
  byId("d-back").disabled = place <= 0;
  byId("d-next").disabled = place < 0 || place === listed.length - 1;
  const label = manifest.names[set.label[row]];
  byId("d-answer").replaceChildren(...(test ? answer(row, label) : trained(row, label)));
  byId("d-cause").textContent = test ? CAUSE_WORDS[CAUSES[set.cause[row] - 1]]?.(row) ?? "" : "";
  byId("d-top").replaceChildren(...(test ? [topFive(row)] : []));
  byId("d-curve").replaceChildren(...(test ? [] : curve(row)));
  byId("d-facts").replaceChildren(...facts(row).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  byId("d-near").replaceChildren(...near(row));
  byId("d-maps").hidden = !test || !manifest.grids.predicted;
  const guess = set.suggested[row] >= 0 && set.suggested[row] !== set.label[row] ? set.suggested[row] : guessOf(view.set, row);
  byId("d-label").value = guess;
  byId("d-note").value = "";
  showDecision();
  if (!dialog.open) {
    dialog.showModal();
    byId("d-title").focus();
  }
  dialog.scrollTop = 0;
  showLook();
}

function answer(row, label) {
  const { predicted, confidence } = tables.test;
  const parts = [make("strong", {}, manifest.names[predicted[row]]), ` with ${percent(confidence[row])} confidence`];
  return isWrong(row) ? [...parts, make("br"), "label ", make("strong", {}, label)] : [...parts, ", as its label says"];
}

function trained(row, label) {
  const { suggested, label: labels } = tables.train;
  const doubt = suggested[row] >= 0 && suggested[row] !== labels[row];
  return ["label ", make("strong", {}, label), ...(doubt ? [make("br"), "perhaps ", make("strong", {}, manifest.names[suggested[row]])] : [])];
}

function topFive(row) {
  const { top, top_share: shares, label } = tables.test;
  const width = top.length / tables.test.size;
  return make("ol", { class: "probable", "aria-label": "Most probable classes" }, ...Array.from({ length: width }, (_, k) => {
    const [cls, share] = [top[row * width + k], shares[row * width + k] / 65535];
    const bar = make("span", { class: "share" });
    bar.style.width = `${100 * share}%`;
    return make("li", { class: cls === label[row] ? "is-label" : null }, make("span", { class: "name" }, manifest.names[cls]),
      make("span", { class: "track" }, bar), make("span", { class: "number" }, percent(share)));
  }));
}

function facts(row) {
  const set = tables[view.set];
  const number = (name, digits) => (Number.isNaN(set[name][row]) ? "not known" : set[name][row].toFixed(digits));
  if (view.set === "train") {
    return [["Suspicion that the label is wrong", number("suspicion", 2)], ["AUM", number("aum", 2)], ["Forgotten", set.forgetting[row] < 0 ? "never learned" : `${number("forgetting", 0)}×`],
      ["Mean probability of its label", number("p_mean", 2)], ["Spread of it", number("p_std", 2)]];
  }
  const slice = manifest.slices[set.slice[row]];
  return [["Loss", number("loss", 3)], ["Margin", number("margin", 2)], ["Ambiguity", number("ambiguity", 2)],
    ["Suspicion that the label is wrong", number("suspicion", 2)], ["Classes in its conformal set", String(set.set_size[row])],
    ...(set.difficulty[row] ? [["Difficulty", KINDS[set.difficulty[row] - 1]]] : []), ...(slice ? [["Slice", slice.name]] : [])];
}

// The probability of the label after each epoch, as a line; unseen epochs leave gaps.
function curve(row) {
  const epochs = manifest.epochs;
  if (!epochs) return [];
  const values = tables.train.curve.subarray(row * epochs, (row + 1) * epochs);
  const at = column("epoch");
  const svg = (tag, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const x = (k) => 30 + (epochs === 1 ? 0 : 250 * k / (epochs - 1));
  const y = (value) => 82 - 74 * value / 254;
  const line = [...values].map((value, k) => (value === 255 ? "" : `${k && values[k - 1] !== 255 ? "L" : "M"}${x(k)} ${y(value)}`)).join("");
  const words = [...values].map((value, k) => (value === 255 ? "" : `${at[k]}: ${percent(value / 254, 0)}`)).filter(Boolean);
  const text = (px, py, anchor, said) => svg("text", { x: px, y: py, "text-anchor": anchor }, said);
  const dots = [...values].map((value, k) => (value === 255 ? null
    : svg("circle", { class: "accent", cx: x(k), cy: y(value), r: 2.5 }, svg("title", {}, `epoch ${at[k]}: ${percent(value / 254, 0)}`))));
  return [make("figure", { class: "diagram" }, make("figcaption", {}, "Probability of its label after each epoch"),
    svg("svg", { class: "plot", viewBox: "0 0 290 100", role: "img", "aria-label": `Probability of the label by epoch: ${words.join(", ")}` },
      svg("g", { class: "grid" }, svg("path", { d: "M30 8H280M30 82H280" }), text(25, 12, "end", "1"), text(25, 86, "end", "0"),
        text(30, 97, "start", `epoch ${at[0]}`), text(280, 97, "end", String(at[epochs - 1]))),
      svg("path", { class: "line accent", d: line }), ...dots.filter(Boolean)))];
}

// The twin, and the training images that the model finds most alike.
function near(row) {
  const set = tables[view.set];
  const blocks = [];
  const other = view.set === "test" ? "train" : "test";
  const labelled = (split, index, extra = "") => {
    const known = tables[split].row.get(index);
    const label = known === undefined ? "" : manifest.names[tables[split].label[known]];
    return make("figure", {}, thumb(split, index, 80), make("figcaption", {}, label, make("br"), extra || `${split === "test" ? "test" : "training"} ${index}`));
  };
  if (set.twin[row] >= 0) {
    blocks.push(make("h3", {}, "Its near-duplicate"), make("div", { class: "row" }, labelled(other, set.twin[row])));
  }
  const lists = view.set === "test" ? column("neighbour.row") : undefined;
  const found = lists ? lists.indexOf(view.open) : -1;
  if (found >= 0) {
    const [indices, similarity] = [column("neighbour.index"), column("neighbour.similarity")];
    const width = indices.length / lists.length;
    blocks.push(make("h3", {}, "Nearest training images, as the model sees them"), make("div", { class: "row" },
      ...Array.from({ length: width }, (_, k) => labelled("train", indices[found * width + k], `similarity ${similarity[found * width + k].toFixed(2)}`))));
  }
  return blocks;
}

// The picture and the chosen map over it.
function showLook() {
  const row = openRow();
  if (row === undefined) return;
  const box = byId("d-picture");
  const size = drawnSize(view.set, Math.min(320, box.parentElement.clientWidth));
  showPicture(byId("d-image"), view.set, row, size);
  [box.style.width, box.style.height] = size.map((side) => `${side}px`);
  const label = manifest.names[tables[view.set].label[row]];
  box.setAttribute("aria-label", `${byId("d-title").textContent}, label ${label}`);
  const canvas = byId("d-heat");
  canvas.hidden = true;
  byId("d-said").textContent = "";
  if (view.set !== "test" || !manifest.grids.predicted) return;
  const usable = Object.keys(MAPS).filter((name) => isWrong(row) || !["true", "difference"].includes(name));
  if (!usable.includes(looks.which)) looks.which = "predicted";
  byId("d-which").replaceChildren(...usable.map((name) => make("button", {
    type: "button", role: "radio", "aria-checked": String(looks.which === name), "data-map": name, click: () => { looks.which = name; showLook(); },
  }, MAPS[name])));
  paintScale(byId("d-scale"), looks.name);
  if (looks.which === "none") return;
  const [heat, reason] = chosenHeat(row);
  byId("d-said").textContent = heat ? said(row) : reason;
  if (!heat) return;
  canvas.hidden = false;
  paintHeat(canvas, heat, looks);
}

function said(row) {
  const [guess, label] = [manifest.names[tables.test.predicted[row]], manifest.names[tables.test.label[row]]];
  return { predicted: `What spoke for ${guess}.`, true: `What spoke for ${label}.`, difference: `What spoke for ${guess} rather than ${label}.` }[looks.which];
}

// Return the heat, or null and why there is none.
function chosenHeat(row) {
  const predicted = grid("predicted", row);
  const truth = isWrong(row) ? grid("true", wrongBefore[row]) : predicted;
  const cells = { predicted, true: truth, difference: predicted && truth && predicted.map((value, k) => value - truth[k]) }[looks.which];
  if (!cells) return [null, "This map is not finite."];
  return [heatOf(cells, manifest.grids.predicted, HEAT_SIDE), "Nothing here speaks for the class."];
}

function showDecision() {
  const row = openRow();
  if (row === undefined || !manifest.data) return;
  const made = decisions.get(decisionKey(view.set, view.open));
  for (const button of document.querySelectorAll("#d-decide [data-action]")) {
    button.setAttribute("aria-pressed", String(button.dataset.action === (made?.action ?? "")));
  }
  if (made?.label) byId("d-label").value = manifest.data.class_names.indexOf(made.label);
  byId("d-note").value = made?.note ?? byId("d-note").value;
}

// Decide on the open image, or on the active one of the gallery with what the audit suggests.
function decideHere(action) {
  if (!manifest.data) return;
  const open = openRow();
  const row = open ?? listed[active];
  if (row === undefined) return;
  const set = tables[view.set];
  const suggested = set.suggested[row] >= 0 && set.suggested[row] !== set.label[row] ? set.suggested[row] : guessOf(view.set, row);
  const cls = open === undefined ? suggested : +byId("d-label").value;
  const note = open === undefined ? undefined : byId("d-note").value;
  decide(view.set, set.index[row], action, manifest.data.class_names[cls], note);
}

function step(by) {
  const place = listed.indexOf(openRow()) + by;
  if (listed[place] === undefined) return;
  view = { ...view, open: tables[view.set].index[listed[place]] };
  goTo(view, false);
  moveTo(place);
  showDetails();
}

function detailsKey(event) {
  const steps = { ArrowRight: 1, ArrowLeft: -1, j: 1, k: -1 };
  if (event.key in steps) step(steps[event.key]);
  else if (event.key === "m" && !byId("d-maps").hidden) {
    const names = [...byId("d-which").children].map((button) => button.dataset.map);
    looks.which = names[(names.indexOf(looks.which) + 1) % names.length];
    showLook();
  } else return false;
  return true;
}

function startDetails() {
  byId("d-label").replaceChildren(...manifest.names.map((name, place) => make("option", { value: place }, name)));
  byId("d-back").addEventListener("click", () => step(-1));
  byId("d-next").addEventListener("click", () => step(1));
  byId("d-close").addEventListener("click", () => byId("viewer").close());
  byId("viewer").addEventListener("close", () => {
    if (view.open === null) return;
    view = { ...view, open: null };
    goTo(view, false);
    byId("grid").focus({ preventScroll: true });
  });
  byId("viewer").addEventListener("click", (event) => { if (event.target === byId("viewer")) byId("viewer").close(); });
  byId("d-opacity").addEventListener("input", (event) => { looks.opacity = event.target.value / 100; showLook(); });
  byId("d-least").addEventListener("input", (event) => { looks.least = event.target.value / 100; showLook(); });
  byId("d-colors").addEventListener("input", (event) => { looks.name = event.target.value; showLook(); });
  for (const button of document.querySelectorAll("#d-decide [data-action]")) {
    button.addEventListener("click", () => decideHere(button.dataset.action));
  }
  byId("d-label").addEventListener("input", () => {
    if (decisions.get(decisionKey(view.set, view.open))?.action === "relabel") decideHere("relabel");
  });
  byId("d-note").addEventListener("change", () => {
    const made = decisions.get(decisionKey(view.set, view.open));
    if (made) decide(made.split, made.index, made.action, made.label, byId("d-note").value);
  });
}
