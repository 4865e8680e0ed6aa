/**
 * The graph with layer inputs as outputs: its weights are copied once into a working folder, and every pass gets a
 * small graph of its own beside them, so that the runtime keeps alive only what the pass asks for.
 */
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { cloneModel, exposeValues } from "../formats/onnx/edit.js";
import {
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  NodeProtoSchema,
  TensorProto_DataType,
} from "../formats/onnx/onnx-pb.js";
import { type OnnxFile, readOnnx } from "../formats/onnx/read.js";
import { writeOnnx } from "../formats/onnx/write.js";
import { OutputFile } from "../io/output.js";
import type { CalibrationValue } from "./values.js";

/** A value as an output: its name in the graph, and that of the output. */
export interface ExposedValue {
  readonly input: string;
  readonly output: string;
}

export class ExposableGraph {
  readonly #folder: string;
  readonly #model: ModelProto;
  #graphs = 0;

  private constructor(folder: string, model: ModelProto) {
    this.#folder = folder;
    this.#model = model;
  }

  /** Copies graph and weights of `file` into `folder`, which must be there. */
  static async create(file: OnnxFile, folder: string): Promise<ExposableGraph> {
    const path = join(folder, "graph.onnx");
    await writeOnnx(file, { path, model: file.model, replaced: new Map(), externalData: "always" });
    return new ExposableGraph(folder, (await readOnnx(path)).model);
  }

  /** Path of a graph that gives the shapes of values, as 64-bit integers, and no values. */
  async writeShapes(values: readonly CalibrationValue[]): Promise<{ path: string; exposed: ExposedValue[] }> {
    return this.#write(listInputs(values), (model, { input }, output) => addNode(model, "Shape", input, output));
  }

  /** Path of a graph that gives the values as float32. */
  async writeValues(values: readonly CalibrationValue[]): Promise<{ path: string; exposed: ExposedValue[] }> {
    return this.#write(listInputs(values), (model, { input, dtype }, output) =>
      // A node of its own also lets inputs of the graph be outputs.
      addNode(model, dtype === "F32" ? "Identity" : "Cast", input, output),
    );
  }

  async #write(
    inputs: readonly GraphInput[],
    add: (model: ModelProto, input: GraphInput, output: string) => void,
  ): Promise<{ path: string; exposed: ExposedValue[] }> {
    const model = cloneModel(this.#model);
    const exposed = inputs.map(({ input }, index) => ({ input, output: `arrowquant.calibration.${index}` }));
    for (const [index, input] of inputs.entries()) add(model, input, exposed[index]?.output as string);
    exposeValues(
      model,
      exposed.map(({ output }) => output),
    );
    const path = join(this.#folder, `graph-${this.#graphs++}.onnx`);
    const file = await OutputFile.create(path);
    try {
      await file.write(toBinary(ModelProtoSchema, model));
    } finally {
      await file.close();
    }
    return { path, exposed };
  }
}

interface GraphInput {
  readonly input: string;
  readonly dtype: CalibrationValue["dtype"];
}

/** Each graph value once, whatever number of layers read it, and in whatever way. */
function listInputs(values: readonly CalibrationValue[]): GraphInput[] {
  const dtypes = new Map(values.flatMap(({ inputs, dtype }) => inputs.map((input) => [input, dtype] as const)));
  return [...dtypes].map(([input, dtype]) => ({ input, dtype }));
}

function addNode(model: ModelProto, opType: "Identity" | "Cast" | "Shape", input: string, output: string): void {
  const toFloat = create(AttributeProtoSchema, {
    name: "to",
    type: AttributeProto_AttributeType.INT,
    i: BigInt(TensorProto_DataType.FLOAT),
  });
  model.graph?.node.push(
    create(NodeProtoSchema, {
      name: output,
      opType,
      input: [input],
      output: [output],
      attribute: opType === "Cast" ? [toFloat] : [],
    }),
  );
}
