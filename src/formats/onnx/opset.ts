/**
 * Raising a graph's operator set. Most new versions of operators only take more types; those that changed what a node
 * means are in the tables here. https://github.com/onnx/onnx/blob/main/docs/Changelog.md
 */
import { create } from "@bufbuild/protobuf";
import { quoteName } from "../json.js";
import { GraphBuilder, integerAttribute } from "./graph-builder.js";
import { type GraphProto, type ModelProto, type NodeProto, OperatorSetIdProtoSchema } from "./onnx-pb.js";

/** DequantizeLinear in blocks, and of uint4. */
export const OPSET_OF_BLOCKS = 21n;
/** The version of the format that came with operator set 21 (docs/Versioning.md). */
const IR_VERSION_OF_BLOCKS = 10n;

/** Before this one Softmax, Squeeze and others meant other things. */
const OLDEST_RAISED = 13n;

/** Operators that mean something else from a version on, and that no rule here rewrites. */
const CHANGED: ReadonlyMap<string, bigint> = new Map([
  ["RoiAlign", 16n],
  ["GridSample", 20n],
  ["DFT", 20n],
  ["GroupNormalization", 21n],
]);

/** From operator set 18 on these have `axes` as an input. ReduceSum has had it since 13. */
const REDUCTIONS: ReadonlySet<string> = new Set([
  "ReduceMax",
  "ReduceMin",
  "ReduceMean",
  "ReduceProd",
  "ReduceL1",
  "ReduceL2",
  "ReduceLogSum",
  "ReduceLogSumExp",
  "ReduceSumSquare",
]);
const OPSET_OF_AXES_INPUT = 18n;

/** From this version on a Split without sizes says in how many parts. */
const OPSET_OF_SPLIT_COUNT = 18n;

/**
 * Raises the model to operator set 21, or leaves it where it is there already.
 * Returns null, or why it cannot be raised; the model is then as it was.
 */
export function raiseOpset(model: ModelProto): string | null {
  const opset = model.opsetImport.find(({ domain }) => isOnnx(domain));
  const version = opset?.version ?? 0n;
  if (version >= OPSET_OF_BLOCKS) return null;
  if (version < OLDEST_RAISED) return `it uses operator set ${version}`;
  if (model.functions.length > 0) return "it has functions of its own";
  const graph = model.graph as GraphProto;
  const nodes = [...allNodes(graph)].filter(({ domain }) => isOnnx(domain));
  const changed = nodes.find(({ opType }) => version < (CHANGED.get(opType) ?? 0n));
  if (changed !== undefined) {
    return `its ${changed.opType} ${quoteName(changed.name)} means something else after operator set ${version}`;
  }
  const builder = new GraphBuilder(graph);
  for (const node of nodes) {
    if (version < OPSET_OF_AXES_INPUT && REDUCTIONS.has(node.opType)) moveAxes(node, builder);
    if (version < OPSET_OF_SPLIT_COUNT && node.opType === "Split" && (node.input[1] ?? "") === "") {
      node.attribute.push(integerAttribute("num_outputs", node.output.length));
    }
  }
  if (opset === undefined) model.opsetImport.push(create(OperatorSetIdProtoSchema, { version: OPSET_OF_BLOCKS }));
  else opset.version = OPSET_OF_BLOCKS;
  if (model.irVersion < IR_VERSION_OF_BLOCKS) model.irVersion = IR_VERSION_OF_BLOCKS;
  return null;
}

function moveAxes(node: NodeProto, builder: GraphBuilder): void {
  const axes = node.attribute.find(({ name }) => name === "axes");
  if (axes === undefined) return;
  node.attribute = node.attribute.filter((attribute) => attribute !== axes);
  // Inner graphs see the constants of the graph around them.
  node.input.push(builder.constant({ type: "int64", values: BigInt64Array.from(axes.ints) }, [axes.ints.length]));
}

function isOnnx(domain: string): boolean {
  return domain === "" || domain === "ai.onnx";
}

/** Nodes of the graph and of those in attributes, at any depth. */
function* allNodes(graph: GraphProto): Generator<NodeProto> {
  for (const node of graph.node) {
    yield node;
    for (const { g, graphs } of node.attribute) {
      for (const body of g === undefined ? graphs : [g, ...graphs]) yield* allNodes(body);
    }
  }
}
