// Heat maps: raw grids, resized and coloured here, in the way of the package's own figures.

const colors = Object.fromEntries(
  ["inferno", "viridis", "cividis"].map((name) => [name, column(`colors.${name}`)]));

// The grid (h, w) of one map as numbers, or null for a map that is not finite.
function grid(name, row) {
  const [height, width] = manifest.grids[name];
  const scale = column(`${name}.scale`)[row];
  if (Number.isNaN(scale)) return null;
  return Float32Array.from(
    column(`${name}.grid`).subarray(row * height * width, (row + 1) * height * width), (value) => value * scale);
}

// ReLU, bilinear with half-pixel centres, division by the largest value: numbers in [0, 1], or null if none is positive.
function heatOf(cells, [height, width], side) {
  const weights = (length) => Array.from({ length: side }, (_, place) => {
    const centre = Math.max((place + 0.5) * length / side - 0.5, 0);
    const low = Math.min(Math.floor(centre), length - 1);
    return [low, Math.min(low + 1, length - 1), centre - low];
  });
  const [down, across] = [weights(height), weights(width)];
  const heat = new Float32Array(side * side);
  let top = 0;
  for (let y = 0; y < side; y++) {
    const [y0, y1, v] = down[y];
    for (let x = 0; x < side; x++) {
      const [x0, x1, u] = across[x];
      const at = (i, j) => Math.max(cells[i * width + j], 0);
      const value = (1 - v) * ((1 - u) * at(y0, x0) + u * at(y0, x1)) + v * ((1 - u) * at(y1, x0) + u * at(y1, x1));
      heat[y * side + x] = value;
      if (value > top) top = value;
    }
  }
  return top > 0 ? heat.map((value) => value / top) : null;
}

// Paint heat on a canvas: the colour covers `opacity` of the picture where the heat is 1, nothing below `least`.
function paintHeat(canvas, heat, { opacity, least, name }) {
  const side = Math.sqrt(heat.length);
  canvas.width = canvas.height = side;
  const pixels = new ImageData(side, side);
  const table = colors[name];
  heat.forEach((value, place) => {
    const color = 3 * Math.min(255, Math.floor(256 * value));
    pixels.data.set([table[color], table[color + 1], table[color + 2], value < least ? 0 : 255 * opacity * value], 4 * place);
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function paintScale(canvas, name) {
  const pixels = new ImageData(256, 1);
  for (let k = 0; k < 256; k++) pixels.data.set([...colors[name].subarray(3 * k, 3 * k + 3), 255], 4 * k);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
