/**
 * A model's graph that is given its weights with every run: one loaded graph serves every way of quantizing every
 * layer. Loading a graph anew takes as long as many runs of a small one.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { ArrowQuantError } from "../../errors.js";
import { quoteName } from "../../formats/json.js";
import { cloneModel } from "../../formats/onnx/edit.js";
import type { OnnxFile, OnnxInitializer } from "../../formats/onnx/read.js";
import { type FedWeight, turnWeightsIntoInputs } from "../../formats/onnx/weight-inputs.js";
import { writeOnnx } from "../../formats/onnx/write.js";
import type { GraphLayer } from "../../graph/layers.js";
import type { GraphMatch } from "../../graph/match.js";
import { loadRowKernels, readLayerWeight } from "../../graph/weight-rows.js";
import type { RunSession, RunTensor, Runtime } from "../../runtime/runtime.js";
import { countElements } from "../../tensor/layout.js";

/** Float32 weights by tensor name: rows [out, in·kh·kw], as the tensor's own elements lie. */
export type WeightsByName = ReadonlyMap<string, Float32Array>;

/** Inputs of the graph that are one tensor's, as the original has them. */
interface FedTensor {
  readonly elementCount: number;
  readonly originals: Readonly<Record<string, RunTensor>>;
}

export class FedGraph {
  readonly #session: RunSession;
  readonly #tensors: ReadonlyMap<string, FedTensor>;
  /** The original's weights, by input. */
  readonly #originals: Readonly<Record<string, RunTensor>>;

  private constructor(session: RunSession, tensors: ReadonlyMap<string, FedTensor>) {
    this.#session = session;
    this.#tensors = tensors;
    this.#originals = Object.assign(Object.create(null), ...[...tensors.values()].map(({ originals }) => originals));
  }

  /**
   * Loads the graph with the weights of `tensorNames`, all of which the match has, as inputs.
   * @param folder where the edited graph is put; made, and to be removed once the graph is closed
   */
  static async open(request: {
    readonly runtime: Runtime;
    readonly file: OnnxFile;
    readonly match: GraphMatch;
    readonly tensorNames: readonly string[];
    readonly folder: string;
    readonly threads: number;
    readonly signal: AbortSignal;
  }): Promise<FedGraph> {
    const { runtime, file, match, tensorNames, folder, threads, signal } = request;
    const weights = tensorNames.flatMap((tensorName) =>
      listInitializers(file, match, tensorName).map((weight) => ({ tensorName, ...weight })),
    );
    const model = cloneModel(file.model);
    const inputs = turnWeightsIntoInputs(model, weights);
    await mkdir(folder, { recursive: true });
    const path = join(folder, "graph.onnx");
    await writeOnnx(file, { path, model, replaced: new Map(), externalData: "always" });
    const kernels = loadRowKernels();
    const originals = new Map<string, Record<string, RunTensor>>();
    for (const [index, { tensorName, initializer, layer }] of weights.entries()) {
      signal.throwIfAborted();
      const { name, shape } = inputs[index] as (typeof inputs)[number];
      const known = originals.get(tensorName) ?? {};
      known[name] = { dtype: "F32", shape, data: await readLayerWeight(kernels, initializer, layer) };
      originals.set(tensorName, known);
    }
    const tensors = new Map(
      [...originals].map(([name, tensorInputs]) => {
        const [first] = Object.values(tensorInputs) as [RunTensor];
        return [name, { elementCount: countElements(first.shape), originals: tensorInputs }] as const;
      }),
    );
    return new FedGraph(await runtime.open(path, { threads }), tensors);
  }

  /** Bytes of the weights that such a graph is given, each tensor's once. */
  static countBytes({ matched }: GraphMatch, tensorNames: readonly string[]): number {
    return tensorNames.reduce((sum, name) => {
      const layer = matched.get(name)?.layers[0];
      return layer === undefined ? sum : sum + 4 * layer.rows * layer.cols;
    }, 0);
  }

  /**
   * Runs the graph with the weights of `replaced`, and the original's of all other tensors.
   * Throws `E_GRAPH` for a tensor whose weights are no inputs, `E_SHAPE` where there are more or fewer than it has.
   */
  async run(
    feeds: Readonly<Record<string, RunTensor>>,
    outputs: readonly string[],
    replaced: WeightsByName,
  ): Promise<Record<string, RunTensor>> {
    const all: Record<string, RunTensor> = Object.assign(Object.create(null), this.#originals, feeds);
    for (const [tensorName, data] of replaced) {
      const tensor = this.#tensors.get(tensorName);
      if (tensor === undefined) throw notAnInput(tensorName);
      if (data.length !== tensor.elementCount) throw wrongCount(tensorName, data.length, tensor.elementCount);
      for (const [input, original] of Object.entries(tensor.originals)) all[input] = { ...original, data };
    }
    return this.#session.run(all, outputs);
  }

  /** The original, as a graph that is fed nothing but its own inputs. Closing it leaves this graph open. */
  asOriginal(): RunSession {
    const isWeight = ({ name }: { readonly name: string }) => name in this.#originals;
    const { outputs } = this.#session;
    return {
      inputs: this.#session.inputs.filter((input) => !isWeight(input)),
      outputs,
      run: (feeds, wanted = outputs.map(({ name }) => name)) => this.run(feeds, wanted, new Map()),
      close: async () => {},
    };
  }

  async close(): Promise<void> {
    await this.#session.close();
  }
}

/** The initializers that hold a tensor's weights: several where the exporter has copied them. */
function listInitializers(
  file: OnnxFile,
  { matched }: GraphMatch,
  tensorName: string,
): (FedWeight & { readonly initializer: OnnxInitializer; readonly layer: GraphLayer })[] {
  const layers = new Map(matched.get(tensorName)?.layers.map((layer) => [layer.initializer, layer]));
  return [...layers].map(([name, layer]) => ({
    initializer: file.initializers.get(name) as OnnxInitializer,
    transposed: layer.transposed,
    layer,
  }));
}

function notAnInput(tensorName: string): ArrowQuantError {
  return new ArrowQuantError("E_GRAPH", `the graph has no weight ${quoteName(tensorName)} that could be replaced`, {
    details: { tensor: tensorName },
  });
}

function wrongCount(tensorName: string, found: number, expected: number): ArrowQuantError {
  return new ArrowQuantError("E_SHAPE", `${quoteName(tensorName)} has ${expected} weights, ${found} were given`, {
    details: { tensor: tensorName, expected, found },
  });
}
