/** An ONNX model opened without its weights: the graph, and where each initializer's bytes lie. */
import { basename, resolve } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { ArrowQuantError } from "../../errors.js";
import { withFile } from "../../io/read.js";
import type { Dtype } from "../../tensor/dtype.js";
import type { SourceFile } from "../../tensor/info.js";
import { quoteName } from "../json.js";
import { type GraphProto, type ModelProto, ModelProtoSchema, type TensorProto } from "./onnx-pb.js";
import {
  allTensors,
  byteLengthOf,
  dtypeOf,
  isLocated,
  readInlineBytes,
  shapeOf,
  type TensorPlace,
  TensorPlaces,
} from "./tensor.js";
import { gatherGraph, LOCATED_BYTES } from "./wire.js";

/** A named constant of the graph, nearly always a weight. */
export interface OnnxInitializer {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Where the elements lie, in the model file or in external data; null: the few bytes are in `bytes`. */
  readonly place: TensorPlace | null;
  /** Little-endian elements; null where `place` says where they lie. */
  readonly bytes: Uint8Array | null;
}

/** A model file, read but for the bytes of its large tensors. */
export interface OnnxFile {
  /** Absolute path. */
  readonly path: string;
  readonly byteLength: number;
  /**
   * The graph. A tensor whose bytes were left in the file is external data of that very file (location, offset,
   * length), so a copy of the graph still knows where its bytes are; `writeOnnx` brings them back.
   */
  readonly model: ModelProto;
  /**
   * By name: those of the main graph, and of subgraphs where only one has the name. Types that safetensors has
   * no name for (STRING, INT4 …) are in `model` alone.
   */
  readonly initializers: ReadonlyMap<string, OnnxInitializer>;
  /** The model file and its external data files, to see later whether they changed. */
  readonly files: readonly SourceFile[];
}

/**
 * Opens the model at `path` (see wire.ts for what is read and for the limits).
 * @param locatedBytes payloads of tensors of that many bytes and more are located, not read
 *
 * Throws `E_NOT_FOUND`, `E_READ`, `E_HEADER`, `E_TRUNCATED`, `E_UTF8`, `E_LIMIT`, `E_DTYPE`, `E_SHAPE`,
 * `E_INTEGER`, `E_DUPLICATE`, and `E_PATH` where external data leaves the model's folder.
 */
export async function readOnnx(path: string, locatedBytes: number = LOCATED_BYTES): Promise<OnnxFile> {
  const absolute = resolve(path);
  return withFile(absolute, async (file) => {
    const bytes = await gatherGraph(file, ModelProtoSchema, basename(absolute), locatedBytes);
    const model = fromBinary(ModelProtoSchema, bytes);
    if (model.graph === undefined) {
      throw new ArrowQuantError("E_HEADER", `"${absolute}" holds no graph`, {
        hint: "is this an ONNX model at all?",
        details: { path: absolute, byteLength: file.byteLength },
      });
    }
    const places = new TensorPlaces(absolute);
    for (const tensor of allTensors(model)) if (isLocated(tensor)) await places.find(tensor);
    const initializers = await listInitializers(model.graph, places);
    const { byteLength, identity } = file;
    const own = { path: absolute, name: basename(absolute), byteLength, headerByteLength: 0, identity };
    const external = places.files.filter(({ path: other }) => other !== absolute);
    return { path: absolute, byteLength, model, initializers, files: [own, ...external] };
  });
}

async function listInitializers(graph: GraphProto, places: TensorPlaces): Promise<Map<string, OnnxInitializer>> {
  const initializers = new Map<string, OnnxInitializer>();
  for (const [name, tensor] of nameInitializers(graph)) {
    const described = await describeInitializer(tensor, places);
    if (described !== null) initializers.set(name, described);
  }
  return initializers;
}

/**
 * The tensor that each initializer name means: the main graph's, else the only one of a subgraph.
 * Throws `E_DUPLICATE` where a name stands twice in the main graph.
 */
export function nameInitializers(graph: GraphProto): Map<string, TensorProto> {
  const named = new Map<string, TensorProto>();
  for (const tensor of graph.initializer) {
    if (named.has(tensor.name)) {
      throw new ArrowQuantError("E_DUPLICATE", `initializer ${quoteName(tensor.name)} stands twice in the graph`, {
        details: { tensor: tensor.name },
      });
    }
    named.set(tensor.name, tensor);
  }
  const inner = new Map<string, TensorProto | null>();
  for (const subgraph of subgraphsOf(graph)) {
    for (const tensor of subgraph.initializer) inner.set(tensor.name, inner.has(tensor.name) ? null : tensor);
  }
  for (const [name, tensor] of inner) if (tensor !== null && !named.has(name)) named.set(name, tensor);
  return named;
}

/** The graphs in attributes of a graph's nodes (bodies of If, Loop, Scan), at any depth. */
function* subgraphsOf(graph: GraphProto): Generator<GraphProto> {
  for (const node of graph.node) {
    for (const attribute of node.attribute) {
      const bodies = attribute.g === undefined ? attribute.graphs : [attribute.g, ...attribute.graphs];
      for (const body of bodies) {
        yield body;
        yield* subgraphsOf(body);
      }
    }
  }
}

async function describeInitializer(tensor: TensorProto, places: TensorPlaces): Promise<OnnxInitializer | null> {
  const dtype = dtypeOf(tensor);
  const shape = shapeOf(tensor);
  const byteLength = byteLengthOf(tensor);
  if (dtype === null || byteLength === null) return null;
  const { name } = tensor;
  if (isLocated(tensor)) return { name, dtype, shape, place: await places.find(tensor), bytes: null };
  return { name, dtype, shape, place: null, bytes: readInlineBytes(tensor, byteLength) };
}
