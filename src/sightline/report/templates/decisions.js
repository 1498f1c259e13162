// Decisions about images, and the file that `sightline run --fixes` reads.

const decisions = new Map();
const decisionKey = (split, index) => `${split} ${index}`;
const store = `sightline-fixes-${manifest.data?.labels_sha256?.test ?? manifest.run}`;
const WORDS = { relabel: "Relabel", keep: "Keep", drop: "Drop" };
let onDecision = () => {};

function decide(split, index, action, label, note) {
  const key = decisionKey(split, index);
  if (!action) decisions.delete(key);
  else {
    const made = { split, index, action };
    if (action === "relabel") made.label = label;
    made.note = note ?? decisions.get(key)?.note ?? "";
    decisions.set(key, made);
  }
  changed();
}

function changed() {
  kept.write(store, decisions.size ? JSON.stringify(fixesFile()) : null);
  showDecisions();
  onDecision();
}

function fixesFile() {
  const order = [...decisions.values()].sort((a, b) => (a.split === b.split ? a.index - b.index : a.split < b.split ? -1 : 1));
  return { format: "sightline-fixes", version: 1, data: manifest.data, decisions: order };
}

// Return why a file cannot be taken, or nothing after taking it.
function takeFixes(text) {
  let file;
  try { file = JSON.parse(text); } catch { return "This is not JSON; choose a fixes.json that a report exported."; }
  if (file?.format !== "sightline-fixes" || file.version !== 1 || !Array.isArray(file.decisions)) {
    return "This is not a fixes.json of version 1; choose one that a report exported.";
  }
  const hash = (data) => JSON.stringify([data?.labels_sha256?.train, data?.labels_sha256?.test]);
  if (hash(file.data) !== hash(manifest.data)) {
    return "These decisions are about other data: the labels differ; open the report that they came from.";
  }
  const bad = file.decisions.find((one) => !soundDecision(one));
  if (bad) return `A decision cannot be read: ${JSON.stringify(bad).slice(0, 120)}`;
  for (const { split, index, action, label, note } of file.decisions) {
    const made = { split, index, action };
    if (action === "relabel") made.label = label;
    made.note = String(note ?? "").slice(0, 500);
    decisions.set(decisionKey(split, index), made);
  }
  changed();
  return "";
}

function soundDecision(one) {
  const size = { test: manifest.tests, train: manifest.trainings }[one?.split];
  return size !== undefined && Number.isInteger(one.index) && one.index >= 0 && one.index < size && Object.hasOwn(WORDS, one.action)
    && (one.action !== "relabel" || manifest.data.class_names.includes(one.label));
}

const labelName = (label) => manifest.names[manifest.data.class_names.indexOf(label)] ?? "";
const inWords = (made) => (made.action === "relabel" ? `Relabel to ${labelName(made.label)}` : WORDS[made.action]);

function showDecisions() {
  const made = fixesFile().decisions;
  byId("decided-count").textContent = made.length ? plural(made.length, "decision") : "No decisions yet";
  byId("export").disabled = byId("forget").disabled = !made.length;
  byId("decided-list").replaceChildren(...made.slice(0, 200).map((one) => make("li", {},
    thumb(one.split, one.index, 32),
    make("span", {}, `${inWords(one)}: ${one.split === "test" ? "test" : "training"} image ${one.index}${one.note ? ` (${one.note})` : ""} `),
    make("button", { type: "button", click: () => decide(one.split, one.index, ""), "aria-label": `Undo image ${one.index}` }, "Undo"))));
}

function startDecisions() {
  if (!manifest.data) {
    // A run without a fingerprint of its labels: what was decided could not be matched to them.
    byId("d-decide").hidden = byId("f-done").closest("label").hidden = true;
    byId("decisions").replaceChildren(make("p", { class: "note" },
      "This run kept no fingerprint of its labels, so that decisions could not be matched to them: run it again to decide."));
    return;
  }
  const say = (text) => { byId("decided-said").textContent = text; };
  byId("export").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([JSON.stringify(fixesFile(), null, 2)], { type: "application/json" }));
    make("a", { href: address, download: "fixes.json" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    say(`${plural(decisions.size, "decision")} exported.`);
  });
  byId("forget").addEventListener("click", () => { decisions.clear(); changed(); say("All forgotten."); });
  byId("import").addEventListener("click", () => byId("import-file").click());
  byId("import-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    say(takeFixes(await file.text()) || `${plural(decisions.size, "decision")} in all.`);
    event.target.value = "";
  });
  const before = kept.read(store);
  if (before) takeFixes(before);
  showDecisions();
}
