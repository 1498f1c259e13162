// The view is in the address: #true=cat&pred=dog&sort=loss, #img=2405, #set=train&train=77.

const EMPTY = {
  set: "test", true: "", pred: "", is: "", kind: "", cause: "", slice: "", done: "", low: 0, high: 100, q: "", fix: "",
  sort: "", flip: false, open: null,
};

const classOf = (key) => {
  const place = manifest.keys.indexOf(key);
  return place < 0 ? "" : place;
};

function readAddress(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const view = { ...EMPTY };
  const whole = (text) => (/^\d+$/.test(text ?? "") ? +text : null);
  view.set = words.get("set") === "train" || words.has("train") ? "train" : "test";
  view.true = classOf(words.get("true"));
  view.pred = classOf(words.get("pred"));
  view.is = ["wrong", "right"].includes(words.get("is")) ? words.get("is") : "";
  view.done = ["yes", "no"].includes(words.get("done")) ? words.get("done") : "";
  view.kind = KINDS.includes(words.get("kind")) ? words.get("kind") : "";
  view.cause = CAUSES.includes(words.get("cause")) ? words.get("cause") : "";
  view.slice = whole(words.get("slice")) ?? "";
  view.fix = whole(words.get("fix")) ?? "";
  view.q = words.get("q") ?? "";
  const [low, high] = (words.get("conf") ?? "").split("-").map(Number);
  if (low >= 0 && high <= 100 && low <= high) [view.low, view.high] = [low, high];
  view.sort = Object.hasOwn(SORTS[view.set], words.get("sort") ?? "") ? words.get("sort") : "";
  view.flip = words.get("order") === "reversed";
  view.open = whole(words.get(view.set === "test" ? "img" : "train"));
  return view;
}

function writeAddress(view) {
  const words = [];
  const add = (name, value) => { if (value !== "" && value !== null) words.push(`${name}=${encodeURIComponent(value)}`); };
  if (view.set === "train") add("set", "train");
  add("true", view.true === "" ? "" : manifest.keys[view.true]);
  add("pred", view.pred === "" ? "" : manifest.keys[view.pred]);
  for (const name of ["is", "kind", "cause", "slice", "done", "fix", "q"]) add(name, view[name]);
  if (view.low > 0 || view.high < 100) add("conf", `${view.low}-${view.high}`);
  add("sort", view.sort);
  if (view.flip) add("order", "reversed");
  add(view.set === "test" ? "img" : "train", view.open);
  return `#${words.join("&") || "gallery"}`;
}

// `step`: whether the back key should return to the view before.
function goTo(view, step) {
  const hash = writeAddress(view);
  if (hash === location.hash) return;
  try {
    if (step) history.pushState(null, "", hash);
    else history.replaceState(null, "", hash);
  } catch {
    // Some browsers let no page of a file write its address: the view changes without it.
  }
}
