// Keys, the address, and the start of everything above.

function startKeys() {
  const help = byId("help");
  byId("keys").hidden = false;
  byId("keys").addEventListener("click", () => help.showModal());
  byId("help-close").addEventListener("click", () => help.close());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const target = event.target;
    const types = target.closest("input:not([type=range]):not([type=checkbox]), select, textarea");
    if (types) {
      if (event.key === "Escape" && target.id === "f-q") byId("grid").focus();
      return;
    }
    if (pressed(event, target)) event.preventDefault();
  });
}

function pressed(event, target) {
  const inside = byId("viewer").open;
  const actions = { 1: "relabel", 2: "keep", 3: "drop", 0: "" };
  if (event.key === "?") byId("help").showModal();
  else if (event.key in actions && (inside || target.id === "grid")) decideHere(actions[event.key]);
  else if (target.matches("input[type=range], [role=tab]")) return false;
  else if (inside) return detailsKey(event);
  else if (event.key === "/") {
    byId("gallery").scrollIntoView();
    byId("f-q").focus();
  } else if (event.key === "j" || event.key === "k") {
    if (target.id !== "grid") byId("grid").focus();
    return gridKey(event);
  } else return target.id === "grid" && gridKey(event);
  return true;
}

// An address with "=" is a view of the gallery; any other is a part of the page, which the browser finds by itself.
function follow() {
  if (!location.hash.includes("=")) {
    if (byId("viewer").open) byId("viewer").close();
    return;
  }
  show(readAddress(location.hash));
  if (view.open === null) byId("gallery").scrollIntoView();
}


function start() {
  startTheme();
  startKeys();
  startDiagrams();
  startDecisions();
  startGallery();
  startDetails();
  startThreshold();
  startThumbs();
  show(readAddress(location.hash.includes("=") ? location.hash : ""));
  if (location.hash.includes("=") && view.open === null) byId("gallery").scrollIntoView();
  window.addEventListener("hashchange", follow);
  document.documentElement.dataset.ready = "";
}

start();
