// What changed between two runs: pictures in three groups, each with both answers and both maps.

const tables = { test: table("test") };
const HEAT_SIDE = 96;
const PAGE = 24;
let shown = PAGE;
let view = { group: 0, true: "" };

function readView() {
  const words = new URLSearchParams(location.hash.slice(1));
  const group = manifest.groups.indexOf(words.get("group"));
  const cls = manifest.keys.indexOf(words.get("true"));
  return { group: group < 0 ? 0 : group, true: cls < 0 ? "" : cls };
}

function writeView() {
  const hash = `#group=${manifest.groups[view.group]}${view.true === "" ? "" : `&true=${encodeURIComponent(manifest.keys[view.true])}`}`;
  try { history.replaceState(null, "", hash); } catch { /* the view changes without its address */ }
}

function rowsOf(group, cls) {
  const rows = [];
  for (let row = 0; row < tables.test.size; row++) {
    if (tables.test.group[row] === group && (cls === "" || tables.test.label[row] === cls)) rows.push(row);
  }
  return rows;
}

function looked(row, side) {
  const set = tables.test;
  const guess = manifest.names[set[side][row]];
  const right = set[side][row] === set.label[row];
  const picture = make("span", { class: "picture" });
  showPicture(picture, "test", row, drawnSize("test", 96));
  const holder = make("div", { class: "looked" }, picture);
  const cells = manifest.grids[side] && grid(side, row);
  const heat = cells && heatOf(cells, manifest.grids[side], HEAT_SIDE);
  if (heat) {
    const canvas = make("canvas", { role: "img", "aria-label": `Where ${side.toUpperCase()} looked for ${guess}` });
    paintHeat(canvas, heat, { opacity: byId("f-opacity").value / 100, least: 0, name: byId("f-colors").value });
    holder.append(canvas);
  }
  return make("figure", { class: right ? "right" : "wrong" }, holder,
    make("figcaption", {}, make("span", { class: "for" }, side.toUpperCase()), make("strong", {}, guess), make("br"),
      `${percent(set[`${side}_sure`][row], 0)} sure`));
}

function change(row) {
  const picture = make("span", { class: "picture", role: "img", "aria-label": `Test image ${tables.test.index[row]}` });
  showPicture(picture, "test", row, drawnSize("test", 96));
  const original = make("figure", {}, make("div", { class: "looked" }, picture),
    make("figcaption", {}, make("span", { class: "for" }, "label"), make("strong", {}, manifest.names[tables.test.label[row]]), make("br"),
      `image ${tables.test.index[row]}`));
  return make("li", { "data-index": tables.test.index[row] }, original, looked(row, "a"), looked(row, "b"));
}

function draw() {
  const rows = rowsOf(view.group, view.true);
  const all = manifest.totals[view.group];
  byId("count").textContent = `${plural(rows.length, "image")}${view.true === "" && rows.length < all ? ` of ${count(all)}` : ""}`;
  byId("changes-list").replaceChildren(...rows.slice(0, shown).map(change));
  byId("more").hidden = rows.length <= shown;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = +tab.dataset.group === view.group;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
}

function choose(part) {
  view = { ...view, ...part };
  shown = PAGE;
  writeView();
  draw();
}

const tabs = manifest.groups.map((name, group) => make("button", {
  type: "button", role: "tab", "data-group": group, "aria-controls": "changes-list", click: () => choose({ group }),
  keydown: (event) => {
    const turn = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!turn) return;
    event.preventDefault();
    const next = (group + turn + manifest.groups.length) % manifest.groups.length;
    choose({ group: next });
    tabs[next].focus();
  },
}, `${name[0].toUpperCase()}${name.slice(1)} (${count(manifest.totals[group])})`));
document.querySelector(".tabs").append(...tabs);
byId("f-true").append(make("option", { value: "" }, "all"), ...manifest.names.map((name, place) => make("option", { value: place }, name)));
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("input", (event) => {
  if (event.target.id === "f-true") choose({ true: byId("f-true").value === "" ? "" : +byId("f-true").value });
  else draw();
});
byId("more").addEventListener("click", () => { shown += PAGE; draw(); });
window.addEventListener("hashchange", () => {
  if (!location.hash.includes("=")) return;
  view = readView();
  byId("f-true").value = view.true;
  draw();
});
view = readView();
byId("f-true").value = view.true;
byId("changes-tool").hidden = false;
startTheme();
draw();
document.documentElement.dataset.ready = "";
