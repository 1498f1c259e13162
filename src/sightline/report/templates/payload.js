// What the page carries: a manifest, and numbers packed one column after the other.

function decode(id) {
  const text = byId(id).textContent;
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

const manifest = JSON.parse(byId("manifest").textContent);
const TYPES = {
  u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, i8: Int8Array, i16: Int16Array, i32: Int32Array, f32: Float32Array,
};
const packed = decode("columns").buffer;

function column(name) {
  const place = manifest.columns[name];
  return place && new TYPES[place[0]](packed, place[1], place[2]);
}

// A set of columns under one prefix, with the row of each index.
function table(prefix) {
  const columns = { split: prefix };
  for (const name of Object.keys(manifest.columns)) {
    if (name.startsWith(`${prefix}.`)) columns[name.slice(prefix.length + 1)] = column(name);
  }
  columns.size = columns.index.length;
  columns.row = new Map(Array.from(columns.index, (index, row) => [index, row]));
  return columns;
}
