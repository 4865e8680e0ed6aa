/** Weights of a graph as inputs of it, so that one loaded graph runs with whatever weights it is given. */
import { create } from "@bufbuild/protobuf";
import { ArrowQuantError } from "../../errors.js";
import { quoteName } from "../json.js";
import { graphOf, IR_VERSION_OF_CONSTANTS } from "./edit.js";
import { GraphBuilder, integerAttribute, integersAttribute } from "./graph-builder.js";
import {
  type ModelProto,
  type NodeProto,
  NodeProtoSchema,
  TensorProto_DataType,
  TensorShapeProto_DimensionSchema,
  TensorShapeProtoSchema,
  TypeProto_TensorSchema,
  TypeProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from "./onnx-pb.js";
import type { OnnxInitializer } from "./read.js";
import { dataTypeOf } from "./tensor.js";

/** An initializer of the main graph that is to be an input. */
export interface FedWeight {
  readonly initializer: Pick<OnnxInitializer, "name" | "dtype" | "shape">;
  /** Whether it is fed as the transpose of what the graph stores; matrices only. */
  readonly transposed: boolean;
}

/** What the runtime is fed for a weight: float32, whatever type the graph computes in. */
export interface WeightInput {
  /** Name of the input. */
  readonly name: string;
  readonly shape: readonly number[];
}

/**
 * Takes the initializers of `weights` out of `model` and makes each an input, in the order of `weights`. What turns and
 * converts them are nodes of the graph: the runtime joins a transposition with the product that follows, and nothing is
 * copied on the way to it.
 * Throws `E_GRAPH` for an initializer that the main graph does not have.
 */
export function turnWeightsIntoInputs(model: ModelProto, weights: readonly FedWeight[]): WeightInput[] {
  const graph = graphOf(model);
  const names = new Set(weights.map(({ initializer }) => initializer.name));
  const initialized = new Set(graph.initializer.map(({ name }) => name));
  for (const name of names) {
    if (initialized.has(name)) continue;
    throw new ArrowQuantError("E_GRAPH", `the main graph has no initializer ${quoteName(name)}`, {
      details: { initializer: name },
    });
  }
  const builder = new GraphBuilder(graph);
  graph.initializer = graph.initializer.filter(({ name }) => !names.has(name));
  // Old graphs list their initializers among the inputs too, in the type that they are stored in.
  graph.input = graph.input.filter(({ name }) => !names.has(name));
  graph.valueInfo = graph.valueInfo.filter(({ name }) => !names.has(name));
  const nodes: NodeProto[] = [];
  const inputs = weights.map((weight): WeightInput => {
    const { name, shape } = weight.initializer;
    const steps = stepsOf(weight);
    const fed = steps.length === 0 ? name : builder.takeName(`${name}/arrowquant/fed`);
    let value = fed;
    for (const [index, { opType, attribute }] of steps.entries()) {
      // The last step gives the value that the graph's own nodes read.
      const output = index === steps.length - 1 ? name : builder.takeName(`${name}/arrowquant/${opType}_output`);
      const nodeName = builder.takeName(`${name}/arrowquant/${opType}`);
      nodes.push(create(NodeProtoSchema, { name: nodeName, opType, input: [value], output: [output], attribute }));
      value = output;
    }
    const input = { name: fed, shape: weight.transposed ? [...shape].reverse() : shape };
    graph.input.push(describeInput(input));
    return input;
  });
  graph.node = [...nodes, ...graph.node];
  if (model.irVersion < IR_VERSION_OF_CONSTANTS) model.irVersion = IR_VERSION_OF_CONSTANTS;
  return inputs;
}

/** What turns a fed weight into the initializer that it stands for. */
function stepsOf({ initializer: { dtype }, transposed }: FedWeight): Pick<NodeProto, "opType" | "attribute">[] {
  const turn = { opType: "Transpose", attribute: [integersAttribute("perm", [1, 0])] };
  const convert = { opType: "Cast", attribute: [integerAttribute("to", dataTypeOf(dtype))] };
  return [...(transposed ? [turn] : []), ...(dtype === "F32" ? [] : [convert])];
}

function describeInput({ name, shape }: WeightInput): ValueInfoProto {
  const dim = shape.map((size) =>
    create(TensorShapeProto_DimensionSchema, { value: { case: "dimValue", value: BigInt(size) } }),
  );
  const tensor = create(TypeProto_TensorSchema, {
    elemType: TensorProto_DataType.FLOAT,
    shape: create(TensorShapeProtoSchema, { dim }),
  });
  const type = create(TypeProtoSchema, { value: { case: "tensorType", value: tensor } });
  return create(ValueInfoProtoSchema, { name, type });
}
