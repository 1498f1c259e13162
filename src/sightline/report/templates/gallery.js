// The gallery: filters and sorts over columns, and a list of which only the rows in sight are in the page.

const tables = { test: table("test"), train: table("train") };
const CAUSES = ["label suspect", "leaked twin", "shortcut", "ambiguous", "confused pair", "unexplained"];
const KINDS = ["ambiguous", "hard but right", "easy but wrong"];
// For each set: the columns that it can be sorted by, whether the largest comes first, and how a value is written.
const SORTS = {
  test: {
    loss: [-1, (value) => `loss ${value.toFixed(3)}`],
    margin: [1, (value) => `margin ${value.toFixed(2)}`],
    ambiguity: [-1, (value) => `ambiguity ${value.toFixed(2)}`],
    suspicion: [-1, (value) => `suspicion ${value.toFixed(2)}`],
    confidence: [-1, (value) => `${percent(value, 0)} sure`],
    index: [1, (value) => `image ${value}`],
  },
  train: {
    suspicion: [-1, (value) => `suspicion ${value.toFixed(2)}`],
    aum: [1, (value) => `AUM ${value.toFixed(2)}`],
    forgetting: [-1, (value) => (value < 0 ? "never learned" : `forgotten ${value}×`)],
    p_mean: [1, (value) => `mean p ${value.toFixed(2)}`],
    p_std: [-1, (value) => `spread of p ${value.toFixed(2)}`],
    index: [1, (value) => `image ${value}`],
  },
};
const SORT_NAMES = { aum: "AUM", p_mean: "mean probability", p_std: "spread of probability" };
const TEXT_HEIGHT = 62;
const GAP = 12;
let view = { ...EMPTY };
let listed = [];
let active = 0;
let drawn = "";

const sortOf = () => view.sort || Object.keys(SORTS[view.set])[0];
const guessOf = (set, row) => (set === "test" ? tables.test.predicted : tables.train.suggested)[row];
const isWrong = (row) => tables.test.predicted[row] !== tables.test.label[row];

function passing() {
  const set = tables[view.set];
  const words = view.q.trim().toLowerCase();
  const named = words && manifest.names.map((name) => name.toLowerCase().includes(words));
  const number = /^#?\d+$/.test(words) ? +words.replace("#", "") : null;
  const fix = view.fix === "" ? null : manifest.fixes[view.fix - 1];
  const chosen = fix && new Set(fix.split === view.set ? fix.images : []);
  const rows = [];
  for (let row = 0; row < set.size; row++) {
    const [label, guess] = [set.label[row], guessOf(view.set, row)];
    if (view.true !== "" && label !== view.true) continue;
    if (view.pred !== "" && guess !== view.pred) continue;
    if (chosen && !chosen.has(set.index[row])) continue;
    if (view.done && decisions.has(decisionKey(view.set, set.index[row])) !== (view.done === "yes")) continue;
    if (words && !(named[label] || named[guess] || set.index[row] === number)) continue;
    if (view.set === "test" && !passesTest(set, row)) continue;
    rows.push(row);
  }
  return rows;
}

function passesTest(set, row) {
  if (view.is && (view.is === "wrong") !== isWrong(row)) return false;
  if (view.kind && KINDS[set.difficulty[row] - 1] !== view.kind) return false;
  if (view.cause && CAUSES[set.cause[row] - 1] !== view.cause) return false;
  if (view.slice !== "" && set.slice[row] !== view.slice) return false;
  const sure = 100 * set.confidence[row];
  return sure >= view.low && (sure < view.high || view.high === 100);
}

function sorted(rows) {
  const values = tables[view.set][sortOf()];
  const turn = SORTS[view.set][sortOf()][0] * (view.flip ? -1 : 1);
  const rank = (row) => (Number.isNaN(values[row]) ? Infinity : turn * values[row]); // unknown comes last
  return rows.sort((a, b) => rank(a) - rank(b) || a - b);
}

// Filter, sort and show; the image that was active stays so where it is still listed.
function refresh() {
  const before = listed[active];
  listed = sorted(passing());
  active = Math.max(0, listed.indexOf(before));
  const size = tables[view.set].size;
  const all = view.set === "test" ? manifest.tests : manifest.trainings;
  byId("count").textContent = `${count(listed.length)} of ${plural(size, view.set === "test" ? "test image" : "training image")}`
    + (size < all ? ` (${view.set === "test" ? "those of highest loss among" : "those that the audit refers to, of"} ${count(all)})` : "");
  byId("clear").hidden = writeAddress({ ...view, sort: "", flip: false, open: null, set: "test" }) === "#gallery";
  const fix = view.fix === "" ? null : manifest.fixes[view.fix - 1];
  byId("chip").hidden = !fix;
  if (fix) byId("chip").textContent = `Fix ${view.fix}: ${fix.title} ×`;
  drawn = "";
  draw();
}

const rowHeight = () => drawnSize(view.set, 96)[1] + TEXT_HEIGHT + GAP;
const across = () => {
  const width = drawnSize(view.set, 96)[0] + GAP;
  return Math.max(1, Math.floor((byId("grid").clientWidth - 8 + GAP) / width));
};

function draw() {
  const grid = byId("grid");
  const size = drawnSize(view.set, 96);
  const height = rowHeight();
  const columns = across();
  const rows = Math.ceil(listed.length / columns);
  byId("spacer").style.height = `${rows * height}px`;
  const first = Math.max(0, Math.floor(grid.scrollTop / height) - 1);
  const last = Math.min(rows, Math.ceil((grid.scrollTop + grid.clientHeight) / height) + 1);
  const now = `${first} ${last} ${columns}`;
  if (now !== drawn) {
    drawn = now;
    const tiles = byId("tiles");
    tiles.style.transform = `translateY(${first * height}px)`;
    tiles.style.gridTemplateColumns = `repeat(${columns}, ${size[0]}px)`;
    tiles.style.gridAutoRows = `${height - GAP}px`;
    tiles.replaceChildren(...listed.slice(first * columns, last * columns).map((row, k) => tile(row, first * columns + k, size)));
  }
  markActive();
}

function tile(row, place, size) {
  const set = tables[view.set];
  const index = set.index[row];
  const [label, guess] = [manifest.names[set.label[row]], manifest.names[guessOf(view.set, row)]];
  const wrong = view.set === "test" ? isWrong(row) : set.label[row] !== set.suggested[row];
  const sort = sortOf();
  const value = Number.isNaN(set[sort][row]) ? "not known" : SORTS[view.set][sort][1](set[sort][row]);
  const made = decisions.get(decisionKey(view.set, index));
  const cause = view.set === "test" ? CAUSES[set.cause[row] - 1] : "";
  const first = view.set === "test" ? guess : label;
  const second = !wrong ? "" : view.set === "test" ? `not ${label}` : `${guess}?`;
  const words = [
    `Image ${index}`, view.set === "test" ? `predicted ${guess}` : "", `label ${label}`,
    view.set === "train" && wrong ? `suggested ${guess}` : "", value, cause, made ? inWords(made) : "",
  ];
  const picture = make("span", { class: "picture" });
  showPicture(picture, view.set, row, size);
  return make("div", {
    class: `tile${wrong ? " wrong" : ""}`, role: "option", id: `tile-${view.set}-${index}`, "data-index": index,
    "aria-setsize": listed.length, "aria-posinset": place + 1, "aria-label": words.filter(Boolean).join(", "), title: cause || null,
    click: () => { active = place; markActive(); openActive(); },
  }, picture, make("span", { class: "name" }, first), make("span", { class: "not" }, second), make("span", { class: "value" }, value),
  made ? make("span", { class: `mark ${made.action}` }, WORDS[made.action]) : null);
}

function markActive() {
  const grid = byId("grid");
  for (const old of grid.querySelectorAll("[aria-selected]")) old.removeAttribute("aria-selected");
  const row = listed[active];
  const option = row === undefined ? null : byId(`tile-${view.set}-${tables[view.set].index[row]}`);
  if (option) {
    option.setAttribute("aria-selected", "true");
    grid.setAttribute("aria-activedescendant", option.id);
  } else grid.removeAttribute("aria-activedescendant");
}

function moveTo(place) {
  if (!listed.length) return;
  active = Math.min(listed.length - 1, Math.max(0, place));
  const grid = byId("grid");
  const height = rowHeight();
  const top = Math.floor(active / across()) * height;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + height > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + height - grid.clientHeight;
  draw();
}

function gridKey(event) {
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across(), ArrowUp: -across(), j: 1, k: -1 };
  const page = across() * Math.max(1, Math.floor(byId("grid").clientHeight / rowHeight()));
  const jumps = { Home: 0, End: listed.length - 1, PageDown: active + page, PageUp: active - page };
  if (event.key in steps) moveTo(active + steps[event.key]);
  else if (event.key in jumps) moveTo(jumps[event.key]);
  else if (event.key === "Enter" || event.key === " ") openActive();
  else return false;
  return true;
}

function openActive() {
  if (listed[active] === undefined) return;
  view = { ...view, open: tables[view.set].index[listed[active]] };
  goTo(view, true);
  showDetails();
}

function change(part) {
  view = { ...view, ...part };
  goTo(view, false);
  byId("grid").scrollTop = 0;
  refresh();
}

// Show a view that came from the address: a link, a bookmark, back and forward.
function show(next) {
  view = next;
  fillFilters();
  refresh();
  if (view.open !== null) active = Math.max(0, listed.indexOf(tables[view.set].row.get(view.open)));
  moveTo(view.open === null ? 0 : active);
  showDetails();
}

const options = (first, names, values) => [first, ...names].map(
  (name, place) => make("option", { value: place ? values?.[place - 1] ?? place - 1 : "" }, name));

function fillFilters() {
  const train = view.set === "train";
  for (const name of ["test", "train"]) {
    byId(`tab-${name}`).setAttribute("aria-selected", String(view.set === name));
    byId(`tab-${name}`).tabIndex = view.set === name ? 0 : -1;
  }
  for (const label of document.querySelectorAll("#filters [data-only]")) label.hidden = train;
  byId("f-pred-name").textContent = train ? "Suggested" : "Predicted";
  byId("f-sort").replaceChildren(...Object.keys(SORTS[view.set]).map((name) => make("option", { value: name }, SORT_NAMES[name] ?? name)));
  for (const name of ["q", "true", "pred", "is", "kind", "cause", "slice", "done", "low", "high"]) byId(`f-${name}`).value = view[name];
  byId("f-sort").value = sortOf();
  byId("f-flip").checked = view.flip;
}

function startGallery() {
  byId("f-true").replaceChildren(...options("all", manifest.names));
  byId("f-pred").replaceChildren(...options("all", manifest.names));
  byId("f-cause").replaceChildren(...options("all", CAUSES, CAUSES));
  byId("f-kind").replaceChildren(...options("all", KINDS, KINDS));
  byId("f-slice").replaceChildren(...options("all", manifest.slices.map((one) => one.name)));
  byId("f-slice").closest("label").classList.toggle("none", !manifest.slices.length);
  byId("tab-test").textContent = `Test images (${count(tables.test.size)})`;
  byId("tab-train").textContent = `Training images (${count(tables.train.size)})`;
  const number = (id) => (byId(id).value === "" ? "" : +byId(id).value);
  const bound = (id, other) => (byId(id).value === "" || !byId(id).validity.valid ? other : +byId(id).value);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("input", () => change({
    q: byId("f-q").value, true: number("f-true"), pred: number("f-pred"), is: byId("f-is").value,
    kind: byId("f-kind").value, cause: byId("f-cause").value, slice: number("f-slice"), done: byId("f-done").value,
    low: bound("f-low", 0), high: bound("f-high", 100), flip: byId("f-flip").checked,
    sort: byId("f-sort").value === Object.keys(SORTS[view.set])[0] ? "" : byId("f-sort").value,
  }));
  const clear = (part = {}) => { view = { ...EMPTY, set: view.set, ...part }; goTo(view, false); show(view); };
  byId("clear").addEventListener("click", () => { clear(); byId("grid").focus(); });
  byId("chip").addEventListener("click", () => { view = { ...view, fix: "" }; goTo(view, false); show(view); });
  const tabs = ["test", "train"];
  for (const name of tabs) {
    byId(`tab-${name}`).addEventListener("click", () => clear({ set: name }));
    byId(`tab-${name}`).addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      event.preventDefault();
      const other = tabs[1 - tabs.indexOf(name)];
      clear({ set: other });
      byId(`tab-${other}`).focus();
    });
  }
  const grid = byId("grid");
  grid.addEventListener("scroll", draw, { passive: true });
  new ResizeObserver(() => { drawn = ""; draw(); }).observe(grid);
  onDecision = () => { if (view.done) refresh(); else { drawn = ""; draw(); } showDecision(); };
  byId("gallery-tool").hidden = false;
}
