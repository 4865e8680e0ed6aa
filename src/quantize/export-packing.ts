/** Which layers of a native file the pack-quantized convention can hold exactly, and what becomes of the others. */
import { ArrowQuantError } from "../errors.js";
import { countWords, PACKED_BIT_WIDTHS, type PackedLayer } from "../formats/compressed-tensors.js";
import type { NativeFile, NativeRowHeader } from "../formats/parquet/reader.js";
import { type NativeRow, QUANT_TYPES } from "../formats/parquet/row.js";
import type { QuantizePlan } from "./result.js";
import { isKept } from "./stored-rows.js";

/** What becomes of one tensor. */
export type Packing =
  | { readonly kind: "packed"; readonly layer: PackedLayer }
  | { readonly kind: "kept" }
  /** Written as plain weights: the convention has no place for such a tensor, however it is quantized. */
  | { readonly kind: "dequantized"; readonly reason: string }
  /** Only other settings make it fit, so nothing is written. */
  | { readonly kind: "refused"; readonly reason: string; readonly hint: string };

const WEIGHT_ENDING = ".weight";

/** Modules of this name are taken for embeddings, whose weights have two dimensions too but are looked up, not multiplied. */
const EMBEDDING_NAME = /^(?:.*\.)?(?:[^.]*embed[^.]*|shared|wte|wpe)$/i;

/** Layers named in an error; all of them stand in its details. */
const MAX_NAMED = 3;

/** What a layer's zero points are, where only its rows can tell; of its chunks the last kind in this order counts. */
const ZERO_POINT_KINDS = ["none", "integer", "fractional"] as const;
type ZeroPointKind = (typeof ZERO_POINT_KINDS)[number];

/**
 * Looks at every layer, and at the zero points of those that have float32 ones.
 * @throws E_CONFLICT where layers are refused, E_NOTHING where none can be packed, errors of reading
 */
export async function planPacking(
  native: NativeFile,
  headers: readonly NativeRowHeader[],
): Promise<Map<string, Packing>> {
  if (native.kind === "plain-v2") {
    throw new ArrowQuantError(
      "E_CONFLICT",
      `"${native.path}" is a plain Parquet V2 file, which --packed does not take`,
      {
        hint: "leave --packed out, or quantize the original with arrowquant",
        details: { path: native.path },
      },
    );
  }
  const decided = new Map<string, Packing>();
  const undecided = new Map<string, NativeRowHeader>();
  for (const header of headers) {
    const packing = isKept(header) ? ({ kind: "kept" } as const) : (findObstacle(header) ?? packedWith(header, false));
    decided.set(header.layerName, packing);
    if (packing.kind === "packed" && header.zeroPointBits === null) undecided.set(header.layerName, header);
  }
  for (const [name, kind] of await readZeroPointKinds(native, undecided)) {
    decided.set(name, withZeroPoints(undecided.get(name) as NativeRowHeader, kind));
  }
  assertExpressible(decided);
  return decided;
}

/**
 * Refuses what is sure to be refused of the file that a plan leads to, before it is quantized. What only weights tell,
 * equalization and float32 zero points that are fractional, is seen afterwards.
 * @throws E_CONFLICT with the layers' names
 */
export function assertPlanPackable({ components }: QuantizePlan): void {
  const layers = components.flatMap((component) => component.layers);
  refuseLayers(
    layers.flatMap(({ tensor: { name, shape }, spec }) => {
      if (spec === null) return [];
      const { bits, groupSize, symmetric } = spec;
      const zeroPointBits = symmetric || spec.method === "r2q" ? null : spec.zeroPointBits;
      const quantType = `int${bits}` as const;
      const coding = {
        layerName: name,
        shape,
        quantType,
        method: spec.method,
        groupSize,
        zeroPointBits,
        spatial: null,
      };
      const obstacle = findObstacle(coding);
      return obstacle?.kind === "refused" ? [{ name, ...obstacle }] : [];
    }),
  );
}

type LayerCoding = Pick<
  NativeRowHeader,
  "layerName" | "shape" | "quantType" | "method" | "groupSize" | "zeroPointBits" | "spatial"
>;

/** Why a layer cannot be packed, as far as its header says. */
function findObstacle(header: LayerCoding): Packing | null {
  const { layerName, shape, method, groupSize, zeroPointBits, spatial } = header;
  const [rows, cols] = shape as readonly [number, number];
  const bits = QUANT_TYPES[header.quantType];
  const dequantized = (reason: string) => ({ kind: "dequantized", reason }) as const;
  const refused = (reason: string, hint: string) => ({ kind: "refused", reason, hint }) as const;
  if (shape.length !== 2) return dequantized(`shape [${shape.join(", ")}]: only linear layers are packed`);
  if (!layerName.endsWith(WEIGHT_ENDING)) return dequantized(`its name does not end in "${WEIGHT_ENDING}"`);
  if (EMBEDDING_NAME.test(moduleName(layerName))) return dequantized("an embedding by its name");
  if (groupSize !== null && groupSize < cols && cols % groupSize !== 0) {
    return dequantized(`rows of ${cols} are no multiple of the group size ${groupSize}`);
  }
  // Zero points of a single word make compressed-tensors 0.20.0 fail (`unpack_from_int32`, a view of odd stride).
  if (countWords(rows, bits) <= 1) return dequantized(`${rows} rows, which one word of zero points holds`);
  if (method === "r2q") return refused("method r2q", "quantize with another --method");
  if ((spatial?.equalizationScales.length ?? 0) > 0) {
    return refused("channel equalization", "quantize with --disable-spatial");
  }
  if (!PACKED_BIT_WIDTHS.includes(bits)) {
    return refused(`${bits} bits`, `quantize with ${PACKED_BIT_WIDTHS.join(", ")} bits`);
  }
  if (zeroPointBits !== null && bits % zeroPointBits !== 0) {
    return refused(
      `zero points of ${zeroPointBits} bits at ${bits}-bit codes, which are fractional`,
      zeroPointHint(bits),
    );
  }
  return null;
}

function zeroPointHint(bits: number): string {
  return `quantize with --zero-point-bits ${bits}, which makes zero points whole, or with --symmetric`;
}

function moduleName(layerName: string): string {
  return layerName.slice(0, -WEIGHT_ENDING.length);
}

function packedWith(header: NativeRowHeader, symmetric: boolean): Packing {
  const [rows, cols] = header.shape as readonly [number, number];
  const groupSize = header.groupSize as number;
  const layer: PackedLayer = {
    module: moduleName(header.layerName),
    bits: QUANT_TYPES[header.quantType],
    groupSize: groupSize >= cols ? null : groupSize,
    symmetric,
    rows,
    cols,
  };
  return { kind: "packed", layer };
}

function withZeroPoints(header: NativeRowHeader, kind: ZeroPointKind): Packing {
  if (kind !== "fractional") return packedWith(header, kind === "none");
  return { kind: "refused", reason: "fractional zero points", hint: zeroPointHint(QUANT_TYPES[header.quantType]) };
}

/** Reads the row groups that hold layers whose zero points are float32 or missing. */
async function readZeroPointKinds(
  native: NativeFile,
  undecided: ReadonlyMap<string, NativeRowHeader>,
): Promise<Map<string, ZeroPointKind>> {
  const kinds = new Map<string, ZeroPointKind>();
  if (undecided.size === 0) return kinds;
  for await (const row of native.rows({ reuseBuffers: true })) {
    if (!undecided.has(row.layerName)) continue;
    const before = kinds.get(row.layerName) ?? "none";
    const kind = zeroPointKind(row);
    kinds.set(row.layerName, ZERO_POINT_KINDS.indexOf(kind) > ZERO_POINT_KINDS.indexOf(before) ? kind : before);
  }
  return kinds;
}

function zeroPointKind({ zeroPoints, quantType }: NativeRow): ZeroPointKind {
  if (zeroPoints === null) return "none";
  const largest = 2 ** QUANT_TYPES[quantType] - 1;
  const isWhole = zeroPoints.every((value) => Number.isInteger(value) && value >= 0 && value <= largest);
  return isWhole ? "integer" : "fractional";
}

function assertExpressible(decided: ReadonlyMap<string, Packing>): void {
  refuseLayers([...decided].flatMap(([name, packing]) => (packing.kind === "refused" ? [{ name, ...packing }] : [])));
  if ([...decided.values()].some(({ kind }) => kind === "packed")) return;
  const reasons = [...decided].flatMap(([name, packing]) =>
    packing.kind === "dequantized" ? [{ name, reason: packing.reason }] : [],
  );
  const because = reasons[0] === undefined ? "none is quantized" : `"${reasons[0].name}": ${reasons[0].reason}`;
  throw new ArrowQuantError("E_NOTHING", `--packed finds no linear layer to pack (${because})`, {
    hint: "leave --packed out",
    details: { layers: reasons },
  });
}

function refuseLayers(refused: readonly { readonly name: string; readonly reason: string; readonly hint: string }[]) {
  const [first] = refused;
  if (first === undefined) return;
  const shown = refused.slice(0, MAX_NAMED).map(({ name, reason }) => `"${name}" (${reason})`);
  const more = refused.length > shown.length ? ` and ${refused.length - shown.length} more` : "";
  throw new ArrowQuantError("E_CONFLICT", `--packed cannot hold ${refused.length} layers: ${shown.join(", ")}${more}`, {
    hint: `${first.hint}; or leave --packed out`,
    details: { layers: refused.map(({ name, reason }) => ({ name, reason })) },
  });
}
