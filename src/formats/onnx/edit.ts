/** Edits of a graph: all work on a copy (`cloneModel`) that `writeOnnx` then writes. */
import { clone, create } from "@bufbuild/protobuf";
import { ArrowQuantError } from "../../errors.js";
import { quoteName } from "../json.js";
import { ActivationNodes, type ActivationQuantizer } from "./activation-quantizer.js";
import { GraphBuilder } from "./graph-builder.js";
import { type GraphProto, type ModelProto, ModelProtoSchema, type NodeProto, ValueInfoProtoSchema } from "./onnx-pb.js";

/** QuantizeLinear needs 10, Clip of uint8 needs 12. */
const MIN_OPSET = 12n;

/** From this version of the format on an initializer need not be an input of the graph too; opset 12 has 7. */
export const IR_VERSION_OF_CONSTANTS = 4n;

/** A deep copy; large tensors are places in files, so it is small whatever the weights are. */
export function cloneModel(model: ModelProto): ModelProto {
  return clone(ModelProtoSchema, model);
}

/**
 * Makes `values` of the main graph outputs, in this order, after those it has; what is an output already is left.
 * An input of the graph may be one too: it comes out as it went in. The runtime infers type and shape where the graph does not say them (an output of a name alone is what ONNX
 * Runtime takes for any type; one with a wrong type it refuses).
 * Throws `E_GRAPH` for a value that the main graph does not have.
 */
export function exposeValues(model: ModelProto, values: readonly string[]): void {
  const graph = graphOf(model);
  const described = new Map([...graph.valueInfo, ...graph.input].map((info) => [info.name, info]));
  const present = new Set([...graph.input.map(({ name }) => name), ...graph.node.flatMap((node) => node.output)]);
  const outputs = new Set(graph.output.map(({ name }) => name));
  for (const value of values) {
    if (outputs.has(value)) continue;
    if (value === "" || !present.has(value)) {
      throw new ArrowQuantError("E_GRAPH", `the graph has no value ${quoteName(value)}`, {
        details: { value },
      });
    }
    outputs.add(value);
    graph.output.push(described.get(value) ?? create(ValueInfoProtoSchema, { name: value }));
  }
  graph.valueInfo = graph.valueInfo.filter(({ name }) => !outputs.has(name));
}

/**
 * Puts quantizers between values and the layers that read them; other readers keep the value as it was.
 * Throws `E_GRAPH` where a consumer does not read the value in the main graph, where parameters are no numbers
 * to quantize with, and where the graph's operator set is too old.
 */
export function quantizeActivations(model: ModelProto, quantizers: readonly ActivationQuantizer[]): void {
  const graph = graphOf(model);
  const nodes = new ActivationNodes(graph, new GraphBuilder(graph), opsetOf(model));
  const inserted = new Map<NodeProto, NodeProto[]>();
  for (const quantizer of quantizers) {
    const { bits, value } = quantizer;
    if (!(Number.isInteger(bits) && bits >= 2 && bits <= 8)) {
      throw new ArrowQuantError("E_GRAPH", `cannot quantize value ${quoteName(value)} to ${bits} bits, only to 2 … 8`, {
        details: { value, bits },
      });
    }
    const consumers = findConsumers(graph, quantizer);
    const built = nodes.build(quantizer, consumers);
    for (const node of consumers) node.input = node.input.map((name) => (name === value ? built.output : name));
    const [first] = consumers;
    if (first === undefined) continue;
    const before = inserted.get(first);
    if (before === undefined) inserted.set(first, built.nodes);
    else before.push(...built.nodes);
  }
  // Nodes stand in an order in which they can run.
  graph.node = [...nodes.leading, ...graph.node.flatMap((node) => [...(inserted.get(node) ?? []), node])];
  if (model.irVersion < IR_VERSION_OF_CONSTANTS) model.irVersion = IR_VERSION_OF_CONSTANTS;
}

/** The consumers in the graph's order. */
function findConsumers(graph: GraphProto, { value, consumers }: ActivationQuantizer): NodeProto[] {
  const names = new Set(consumers);
  const found = graph.node.filter((node) => names.has(nameOf(node)) && node.input.includes(value));
  for (const name of consumers) {
    if (found.some((node) => nameOf(node) === name)) continue;
    const message = `node ${quoteName(name)} of the main graph does not read value ${quoteName(value)}`;
    throw new ArrowQuantError("E_GRAPH", message, {
      hint: "layers within subgraphs (of If, Loop, Scan) cannot be quantized",
      details: { node: name, value },
    });
  }
  return found;
}

/** Names of nodes are optional, those of values are not. */
function nameOf(node: NodeProto): string {
  return node.name !== "" ? node.name : (node.output[0] ?? "");
}

function opsetOf(model: ModelProto): bigint {
  const opset = model.opsetImport.find(({ domain }) => domain === "" || domain === "ai.onnx")?.version ?? 0n;
  if (opset >= MIN_OPSET) return opset;
  throw new ArrowQuantError(
    "E_GRAPH",
    `the graph uses operator set ${opset}, quantizing its values needs ${MIN_OPSET}`,
    {
      hint: "export the model anew with opset_version=17, or convert it with onnx.version_converter",
      details: { opset: Number(opset), needed: Number(MIN_OPSET) },
    },
  );
}

/** The main graph. Throws `E_GRAPH` where there is none. */
export function graphOf(model: ModelProto): GraphProto {
  if (model.graph === undefined) throw new ArrowQuantError("E_GRAPH", "the model holds no graph");
  return model.graph;
}
