// What Python packs into the page, and what its scripts hand to each other.

/** The kind of a packed column's numbers, as `_TYPES` in payload.py names them. */
export type ColumnKind = "u8" | "u16" | "u32" | "i8" | "i16" | "i32" | "f32";

/** Where a column lies among the packed bytes: its kind, its first byte, how many numbers. */
export type ColumnPlace = [kind: ColumnKind, start: number, size: number];

export type Column = Uint8Array | Uint16Array | Uint32Array | Int8Array | Int16Array | Int32Array | Float32Array;

/** Finds a column by its name; undefined where the run has none. */
export type ColumnFinder = (name: string) => Column | undefined;

/** Pictures of one size on sheets, `across` in a row; sheets: ids of the elements that hold them. */
export interface Sprites {
  width: number;
  height: number;
  across: number;
  per_sheet: number;
  sheets: string[];
}

/** [height, width] of a map's grid. */
export type GridSize = [height: number, width: number];

/** The part of the manifest that both pages have. names and keys: of the classes, to be shown and in addresses. */
export interface Manifest {
  names: string[];
  keys: string[];
  grids: Record<string, GridSize | undefined>;
  sprites: Record<string, Sprites>;
  columns: Record<string, ColumnPlace>;
  enums: { colors: string[] };
}

/** The closed lists of the audit; a column holds the place in `causes` or `kinds` plus one, and 0 for none. */
export interface Enums {
  causes: string[];
  kinds: string[];
  actions: string[];
  fixes_format: string;
  fixes_version: number;
  colors: string[];
}

/** What a data set is known by; decisions hold for one alone. */
export interface Fingerprint {
  name: string;
  train: number;
  test: number;
  class_names: string[];
  labels_sha256: Record<SplitName, string>;
}

/**
 * The manifest of a run's page. data: null for a run that kept no fingerprint. files: path and hash of the images
 * in the rows of the tables; null for a run that kept none.
 */
export interface ReportManifest extends Manifest {
  run: string;
  layer: string;
  tests: number;
  trainings: number;
  epochs: number;
  slices: { name: string; evidence: string }[];
  fixes: { title: string; split: SplitName; images: number[] }[];
  data: Fingerprint | null;
  files: Record<SplitName, { path: string[], hash: string[] } | null>;
  enums: Enums;
}

/** The manifest of the page that compares two runs. totals: images of each group, of which the page may show fewer. */
export interface ComparisonManifest extends Manifest {
  groups: string[];
  totals: number[];
}

export type SplitName = "test" | "train";

/** Columns of one length; row: the place of an image in them, by its index in the data set. */
export interface Table {
  size: number;
  row: Map<number, number>;
  index: Column;
  label: Column;
}

export interface TestTable extends Table {
  predicted: Column;
  suggested: Column;
  slice: Column;
  near_duplicate: Column;
  set_size: Column;
  loss: Column;
  confidence: Column;
  margin: Column;
  ambiguity: Column;
  label_quality: Column;
  cause: Column;
  difficulty: Column;
  top: Column;
  top_share: Column;
}

export interface TrainTable extends Table {
  suggested: Column;
  near_duplicate: Column;
  label_quality: Column;
  aum: Column;
  forgetting: Column;
  p_mean: Column;
  p_std: Column;
  curve?: Column;
}

export interface Tables {
  test: TestTable;
  train: TrainTable;
}

export interface ComparisonTable extends Table {
  group: Column;
  a: Column;
  b: Column;
  a_sure: Column;
  b_sure: Column;
}

/** What the gallery shows, as its address says it. null and "": no filter; open: the index of the open image. */
export interface View {
  set: SplitName;
  true: number | null;
  pred: number | null;
  is: string;
  kind: string;
  cause: string;
  slice: number | null;
  done: string;
  low: number;
  high: number;
  q: string;
  fix: number | null;
  sort: string;
  flip: boolean;
  open: number | null;
}

/** What becomes of an image; label: the class that it gets, for "relabel" alone. */
export interface Decision {
  split: SplitName;
  index: number;
  action: string;
  label?: string;
  note: string;
  path?: string;
  hash?: string;
}

/** A decision to be made; the action "" takes one back, and without a note the last one stays. */
export interface Change {
  split: SplitName;
  index: number;
  action: string;
  label?: string;
  note?: string;
}

/** fixes.json, as `sightline run --fixes` reads it. */
export interface FixesFile {
  format: string;
  version: number;
  data: Fingerprint | null;
  decisions: Decision[];
}

/** How heat is painted: opacity where it is 1, nothing below `least`. */
export interface Paint {
  opacity: number;
  least: number;
}

/** What the parts of a run's page share. chosen: rows of the test images
 * that were drawn around on the map; listed: the rows of the gallery in order; active: a place among them. */
export interface Report {
  manifest: ReportManifest;
  column: ColumnFinder;
  tables: Tables;
  decisions: import("./decisions.js").Decisions;
  view: View;
  chosen: Set<number> | null;
  listed: number[];
  active: number;
}
