// Pictures: each sheet becomes one address in memory, and a picture is a window on it.

const sheets = new Map();

function sheetAddress(id) {
  if (!sheets.has(id)) sheets.set(id, URL.createObjectURL(new Blob([decode(id)], { type: "image/webp" })));
  return sheets.get(id);
}

// The size at which a picture is drawn where about `wanted` pixels are there for its longer side: a whole multiple.
function drawnSize(split, wanted) {
  const { width, height } = manifest.sprites[split];
  const times = Math.max(1, Math.floor(wanted / Math.max(width, height) + 0.25));
  return [width * times, height * times];
}

function showPicture(element, split, row, [width, height]) {
  const sprites = manifest.sprites[split];
  const sheet = Math.floor(row / sprites.per_sheet);
  const place = row % sprites.per_sheet;
  const style = element.style;
  style.width = `${width}px`;
  style.height = `${height}px`;
  style.backgroundImage = `url(${sheetAddress(sprites.sheets[sheet])})`;
  style.backgroundSize = `${sprites.across * width}px auto`;
  style.backgroundPosition = `${-(place % sprites.across) * width}px ${-Math.floor(place / sprites.across) * height}px`;
}

// A small picture that leads to its details; a plain mark where the page has no picture of it.
function thumb(split, index, wanted = 64) {
  const row = tables[split].row.get(index);
  const word = split === "test" ? "Test" : "Training";
  const link = make("a", {
    class: "thumb", href: `#${split === "test" ? "img=" : "set=train&train="}${index}`,
    "data-split": split, "data-index": index, "aria-label": `${word} image ${index}`,
  });
  fillThumb(link, row, split, wanted);
  return link;
}

function fillThumb(link, row, split, wanted) {
  if (row === undefined) {
    link.classList.add("absent");
    link.removeAttribute("href");
    return;
  }
  const label = manifest.names[tables[split].label[row]];
  link.title = `${link.getAttribute("aria-label")}, label ${label}`;
  showPicture(link, split, row, drawnSize(split, wanted));
}

// The pictures beside the text are drawn when they come near the window, and all of them before the page is printed.
function startThumbs() {
  const waiting = new Set(document.querySelectorAll("main a.thumb"));
  const fill = (link) => {
    near.unobserve(link);
    if (!waiting.delete(link)) return;
    const { split, index } = link.dataset;
    fillThumb(link, tables[split].row.get(+index), split, link.closest(".evidence:not(.wide)") ? 96 : 64);
  };
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) fill(target);
  }, { rootMargin: "400px" });
  for (const link of waiting) near.observe(link);
  window.addEventListener("beforeprint", () => [...waiting].forEach(fill));
}
