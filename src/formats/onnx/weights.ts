/**
 * An ONNX model as a source of weights: its initializers by position, each seen as torch has it. Matrices that are
 * stored [in, out] are seen [out, in], and those that exporters leave without a name get that of the module in whose
 * path they are multiplied.
 */
import { ArrowQuantError } from "../../errors.js";
import { isFloat } from "../../tensor/dtype.js";
import type { TensorInfo } from "../../tensor/info.js";
import { countElements } from "../../tensor/layout.js";
import { quoteName } from "../json.js";
import type { WeightSet } from "../safetensors/reader.js";
import { integerAttribute } from "./attribute.js";
import { type OnnxFile, type OnnxInitializer, readOnnx } from "./read.js";
import {
  describeNode,
  followUses,
  indexAllReaders,
  isQuantizedUse,
  isStandard,
  isStoredTransposed,
  nameOfNode,
  parameterOfPath,
  type WeightUse,
} from "./weight-uses.js";

/** Every payload lies in a file: readers of tensors know places, not bytes. */
const LOCATE_ALL = 1;

/**
 * Names that exporters make up for constants: torch's for matrices that it transposed or folded (`onnx::MatMul_850`),
 * its newer one's (`val_12`), those of converters that number values.
 */
const ANONYMOUS = /^(?:onnx::\w+_\d+|_?val_\d+|\d+)$/;

/** How the graph uses a weight; of what is none, why. */
type Role =
  | { readonly kind: "weight"; readonly transposed: boolean }
  | { readonly kind: "other"; readonly why: string };

/**
 * Opens the initializers of the model at `path`.
 * @throws what `readOnnx` does; `E_PREQUANTIZED` where the graph's weights are quantized already
 */
export async function openOnnxWeights(path: string): Promise<WeightSet> {
  const file = await readOnnx(path, LOCATE_ALL);
  const readers = indexAllReaders(file.model.graph);
  const followed = new Set<string>();
  const warnings: string[] = [];
  const named: {
    readonly initializer: OnnxInitializer;
    readonly role: Role | null;
    readonly moduleName: string | null;
  }[] = [];
  for (const initializer of file.initializers.values()) {
    // One without a name is read by nothing.
    if (initializer.name === "") continue;
    if (initializer.place === null && initializer.bytes?.byteLength !== 0) {
      warnings.push(
        `${quoteName(initializer.name)} is left out: its ${initializer.dtype} elements are stored as a list of integers`,
      );
      continue;
    }
    const uses = followUses(initializer, readers, followed);
    assertNotQuantized(file, initializer, uses);
    const role = initializer.shape.length < 2 ? null : readRole(initializer, uses);
    named.push({ initializer, role, moduleName: role?.kind === "weight" ? nameByPath(initializer, uses) : null });
  }
  const names = settleNames(named);
  const fileIndex = new Map(file.files.map(({ path: filePath }, index) => [filePath, index]));
  const tensors = named.map(({ initializer, role }, index): TensorInfo => {
    const { dtype, shape, place } = initializer;
    const isTransposed = role?.kind === "weight" && role.transposed;
    return {
      name: names[index] as string,
      shape: isTransposed ? [...shape].reverse() : shape,
      dtype,
      location: {
        file: fileIndex.get(place?.path ?? file.path) as number,
        byteOffset: place?.byteOffset ?? 0,
        byteLength: place?.byteLength ?? 0,
      },
      sourceScale: null,
      ...(isTransposed ? { transposed: true } : {}),
      ...(role?.kind === "other" ? { notWeight: role.why } : {}),
    };
  });
  tensors.sort((a, b) => a.location.file - b.location.file || a.location.byteOffset - b.location.byteOffset);
  return { files: file.files, tensors, metadata: [], warnings };
}

function assertNotQuantized(file: OnnxFile, { name }: OnnxInitializer, uses: readonly WeightUse[]): void {
  const use = uses.find(isQuantizedUse);
  if (use === undefined) return;
  const message = `"${file.path}" is quantized already: ${describeNode(use.node)} reads weight ${quoteName(name)}`;
  throw new ArrowQuantError("E_PREQUANTIZED", message, {
    hint: "give the full-precision model",
    details: { path: file.path, initializer: name, node: nameOfNode(use.node), op: use.node.opType },
  });
}

function readRole({ shape, dtype }: OnnxInitializer, uses: readonly WeightUse[]): Role {
  const other = (why: string): Role => ({ kind: "other", why });
  if (uses.length === 0) return other("no node reads it");
  if (!isFloat(dtype) || countElements(shape) === 0) return other("it holds no weights");
  let transposed: boolean | null = null;
  for (const use of uses) {
    const found = isStandard(use.node) ? (WEIGHT_OPS[use.node.opType]?.(use, shape.length) ?? null) : null;
    if (found === null) return other(`${describeNode(use.node)} reads it`);
    if (transposed !== null && transposed !== found) return other("it is used both as it is and transposed");
    transposed = found;
  }
  return { kind: "weight", transposed: transposed ?? false };
}

/** By operator: whether a weight in that place is stored transposed; null where it is no weight. */
const WEIGHT_OPS: Readonly<Record<string, (use: WeightUse, rank: number) => boolean | null>> = {
  MatMul: readMatrix,
  Gemm: readMatrix,
  Conv: ({ operand, swapped }, rank) => (operand === 1 && rank >= 3 && !swapped ? false : null),
  Gather: ({ node, operand, swapped }, rank) =>
    operand === 0 && rank === 2 && !swapped && integerAttribute(node, "axis", 0) === 0 ? false : null,
};

function readMatrix(use: WeightUse, rank: number): boolean | null {
  return rank === 2 && use.operand <= 1 ? isStoredTransposed(use) : null;
}

/** The parameter that the path of the first node tells; null where the initializer has a name of its own. */
function nameByPath({ name }: OnnxInitializer, uses: readonly WeightUse[]): string | null {
  if (!ANONYMOUS.test(name)) return null;
  const parameter = parameterOfPath(uses[0]?.node.name ?? "");
  return parameter.includes(".") ? parameter : null;
}

/** Names of paths where they are the only ones of that name, else the initializers' own. */
function settleNames(
  named: readonly { readonly initializer: OnnxInitializer; readonly moduleName: string | null }[],
): string[] {
  const counts = new Map<string, number>();
  const count = (name: string): void => void counts.set(name, (counts.get(name) ?? 0) + 1);
  for (const { initializer, moduleName } of named) {
    count(initializer.name);
    if (moduleName !== null) count(moduleName);
  }
  return named.map(({ initializer, moduleName }) =>
    moduleName !== null && counts.get(moduleName) === 1 ? moduleName : initializer.name,
  );
}
