// What if the model answered only when it is sure, or offered several classes: both live, from the columns.

function startThreshold() {
  if (!byId("threshold-tool")) return;
  const { size, confidence, label, predicted, loss, top_share: shares } = tables.test;
  const width = shares.length / size;
  const scale = (id) => byId(id).value / 1000;
  const answers = () => {
    const least = scale("t-answer");
    let [answered, wrong] = [0, 0];
    for (let row = 0; row < size; row++) {
      if (confidence[row] < least) continue;
      answered += 1;
      wrong += predicted[row] !== label[row];
    }
    byId("t-answer-value").textContent = percent(least);
    byId("t-coverage").textContent = `${percent(answered / size)} (${count(answered)})`;
    byId("t-risk").textContent = answered ? `${percent(wrong / answered, 2)} (${count(wrong)})` : "–";
    byId("t-rejected").textContent = plural(size - answered, "image");
    byId("t-rejected").setAttribute("href", `#conf=0-${+(100 * least).toFixed(1)}`);
    mark(answered / size);
  };
  const sets = () => {
    const least = scale("t-set");
    const sizes = new Array(width + 1).fill(0);
    let [covered, total] = [0, 0];
    for (let row = 0; row < size; row++) {
      let inside = 0;
      while (inside < width && shares[row * width + inside] / 65535 >= least) inside += 1;
      sizes[inside] += 1;
      total += inside;
      covered += Math.exp(-loss[row]) >= least;
    }
    const more = manifest.names.length > width && sizes[width];
    byId("t-set-value").textContent = percent(least);
    byId("t-covered").textContent = percent(covered / size);
    byId("t-size").textContent = `${more ? "at least " : ""}${(total / size).toFixed(2)}`;
    byId("t-sizes").replaceChildren(...sizes.map((number, k) => {
      const bar = make("span", { class: "share" });
      bar.style.width = `${100 * number / size}%`;
      const name = k === 0 ? "none" : k === width && manifest.names.length > width ? `${k} or more` : String(k);
      return make("li", {}, make("span", { class: "name" }, name), make("span", { class: "track" }, bar), make("span", { class: "number" }, percent(number / size)));
    }));
  };
  byId("t-answer").value = 500;
  byId("t-set").value = 50;
  byId("t-answer").addEventListener("input", answers);
  byId("t-set").addEventListener("input", sets);
  byId("threshold-tool").hidden = false;
  answers();
  sets();
}

// Move the marker of the risk-coverage curve to a coverage.
function mark(coverage) {
  const plot = byId("risk-curve");
  if (!plot) return;
  const [left, right, top, bottom] = plot.dataset.plot.split(" ").map(Number);
  let line = plot.querySelector(".marker");
  if (!line) {
    line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    line.setAttribute("class", "marker");
    plot.append(line);
  }
  const x = left + coverage * (right - left);
  line.setAttribute("d", `M${x} ${top}V${bottom}`);
}
