/**
 * Writing a model: the graph from memory, the bytes of large tensors streamed from where they lie, into the
 * model file itself or into one external data file beside it.
 */
import { rm } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { create, type DescMessage, type Message, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { ArrowQuantError } from "../../errors.js";
import { OutputFile, OutputTarget } from "../../io/output.js";
import { type OpenFile, readExactly, withFile } from "../../io/read.js";
import { assertUnchanged } from "../../io/unchanged.js";
import type { Dtype } from "../../tensor/dtype.js";
import { quoteName } from "../json.js";
import { cloneModel, graphOf, IR_VERSION_OF_CONSTANTS } from "./edit.js";
import {
  type GraphProto,
  type ModelProto,
  ModelProtoSchema,
  type TensorProto,
  TensorProto_DataLocation,
  TensorProtoSchema,
} from "./onnx-pb.js";
import { nameInitializers, type OnnxFile } from "./read.js";
import {
  allTensors,
  byteLengthOf,
  childMessages,
  dataTypeOf,
  isLocated,
  type TensorPlace,
  TensorPlaces,
} from "./tensor.js";
import { LOCATED_BYTES } from "./wire.js";

/**
 * Largest model written as one file. Protobuf ends at 2 GiB, and a runtime holds such a file in memory twice
 * while it loads; external data it maps.
 */
export const MAX_INLINE_BYTES = 1024 ** 3;

/**
 * Where tensors begin in external data: on a page, so that a runtime can map them (onnx.proto, comment on
 * TensorProto.external_data).
 */
export const EXTERNAL_ALIGNMENT = 4096;

const COPY_BYTES = 4 * 1024 * 1024;

/** `raw_data` of TensorProto. */
const RAW_DATA_FIELD = 9;

/** New bytes of an initializer, replaced or added. */
export interface InitializerBytes {
  readonly name: string;
  /** UINT4: two elements a byte, the first in the low half, over the whole tensor. */
  readonly dtype: Dtype | "UINT4";
  readonly shape: readonly number[];
  /** The elements, little-endian and row-major, cut anywhere. */
  readonly chunks: () => AsyncIterable<Uint8Array>;
}

export interface WriteOnnxOptions {
  readonly path: string;
  /** The graph to write: `file.model` or an edited copy. It is not changed. */
  readonly model: ModelProto;
  /** By initializer name; the bytes of all others are copied from the file by position. */
  readonly replaced: ReadonlyMap<string, InitializerBytes>;
  /** `auto`: one file up to `MAX_INLINE_BYTES`, else large tensors in `NAME.onnx.data` beside it. */
  readonly externalData: "auto" | "always" | "never";
}

/** Bytes of a tensor that are not in memory. */
interface Payload {
  readonly byteLength: number;
  readonly chunks: () => AsyncIterable<Uint8Array>;
}

/**
 * Writes a model; whatever stands at `path` is replaced, once the new one is complete.
 * Returns the bytes of all files and their paths, the model first.
 *
 * Throws `E_LIMIT` where one file is asked for and it would be too large, `E_SHAPE` where new bytes are more or
 * fewer than their shape says, `E_CHANGED` where the source changed meanwhile, `E_WRITE`, and what `readOnnx` does.
 */
export async function writeOnnx(
  file: OnnxFile,
  options: WriteOnnxOptions,
): Promise<{ byteLength: number; files: string[] }> {
  const path = resolve(options.path);
  const model = cloneModel(options.model);
  const payloads = await collectPayloads(file, model, options.replaced);
  const isExternal = decideExternal(file, model, payloads, options.externalData);
  const dataPath = `${path}.data`;
  const target = await prepareTarget(path);
  const dataTarget = isExternal ? await prepareTarget(dataPath) : null;
  try {
    let byteLength = 0;
    if (dataTarget !== null) {
      byteLength += await writeExternal(dataTarget, basename(dataPath), payloads);
      payloads.clear();
    }
    byteLength += await writeSegments(target, encodeModel(model, payloads));
    await assertUnchanged(file.files);
    if (dataTarget !== null) {
      // Between the two renames there is no model rather than an old one with new data.
      await rm(path, { force: true });
      await dataTarget.commit();
    }
    await target.commit();
    return { byteLength, files: dataTarget === null ? [path] : [path, dataPath] };
  } catch (thrown) {
    await target.discard();
    await dataTarget?.discard();
    throw thrown;
  }
}

function prepareTarget(path: string): Promise<OutputTarget> {
  return OutputTarget.prepare(path, { kind: "file", force: true, inputs: [], isOurs: async () => true });
}

/** Puts new initializers into the graph and finds the bytes of all tensors that are large. */
async function collectPayloads(
  file: OnnxFile,
  model: ModelProto,
  replaced: ReadonlyMap<string, InitializerBytes>,
): Promise<Map<TensorProto, Payload>> {
  const graph = graphOf(model);
  const named = nameInitializers(graph);
  const payloads = new Map<TensorProto, Payload>();
  const places = new TensorPlaces(file.path);
  for (const [name, bytes] of replaced) {
    const old = named.get(name) ?? addInitializer(model, graph, name);
    const payload = replaceTensor(old, bytes);
    if (payload.byteLength >= LOCATED_BYTES) payloads.set(old, payload);
    else old.rawData = await gather(payload);
  }
  for (const tensor of allTensors(model)) {
    if (!payloads.has(tensor) && isLocated(tensor)) {
      const place = await places.find(tensor);
      clearData(tensor);
      const payload = { byteLength: place.byteLength, chunks: () => readPlace(place) };
      if (payload.byteLength >= LOCATED_BYTES) payloads.set(tensor, payload);
      else tensor.rawData = await gather(payload);
    }
  }
  return payloads;
}

function addInitializer(model: ModelProto, graph: GraphProto, name: string): TensorProto {
  const tensor = create(TensorProtoSchema, { name });
  graph.initializer.push(tensor);
  if (model.irVersion < IR_VERSION_OF_CONSTANTS) model.irVersion = IR_VERSION_OF_CONSTANTS;
  return tensor;
}

function replaceTensor(tensor: TensorProto, { name, dtype, shape, chunks }: InitializerBytes): Payload {
  clearData(tensor);
  tensor.dims = shape.map(BigInt);
  tensor.dataType = dataTypeOf(dtype);
  const byteLength = byteLengthOf(tensor) as number;
  return { byteLength, chunks: () => checkLength(name, byteLength, chunks()) };
}

function clearData(tensor: TensorProto): void {
  for (const key of ["rawData", "dataLocation"] as const) delete (tensor as Partial<TensorProto>)[key];
  tensor.floatData = [];
  tensor.doubleData = [];
  tensor.int32Data = [];
  tensor.int64Data = [];
  tensor.uint64Data = [];
  tensor.stringData = [];
  tensor.externalData = [];
}

async function* checkLength(
  name: string,
  byteLength: number,
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  let given = 0;
  for await (const chunk of chunks) {
    given += chunk.byteLength;
    if (given > byteLength) break;
    yield chunk;
  }
  if (given !== byteLength) {
    const found = given > byteLength ? "more" : given;
    throw new ArrowQuantError(
      "E_SHAPE",
      `initializer ${quoteName(name)} has ${byteLength} bytes, ${found} were given`,
      {
        details: { tensor: name, byteLength, given },
      },
    );
  }
}

/** The chunks share one buffer: each is used before the next is asked for. */
async function* readPlace({ path, byteOffset, byteLength }: TensorPlace): AsyncGenerator<Uint8Array> {
  const buffer = Buffer.allocUnsafeSlow(Math.min(COPY_BYTES, byteLength));
  for (let done = 0; done < byteLength; done += COPY_BYTES) {
    const chunk = buffer.subarray(0, Math.min(COPY_BYTES, byteLength - done));
    await withFile(path, (file: OpenFile) => readExactly(file, chunk, byteOffset + done));
    yield chunk;
  }
}

async function gather(payload: Payload): Promise<Uint8Array> {
  const bytes = new Uint8Array(payload.byteLength);
  let filled = 0;
  for await (const chunk of payload.chunks()) {
    bytes.set(chunk, filled);
    filled += chunk.byteLength;
  }
  return bytes;
}

function decideExternal(
  file: OnnxFile,
  model: ModelProto,
  payloads: ReadonlyMap<TensorProto, Payload>,
  wish: WriteOnnxOptions["externalData"],
): boolean {
  if (wish === "always") return payloads.size > 0;
  const graphBytes = toBinary(ModelProtoSchema, model).byteLength;
  const inlineBytes = [...payloads.values()].reduce((sum, { byteLength }) => sum + byteLength, graphBytes);
  if (inlineBytes <= MAX_INLINE_BYTES) return false;
  if (wish === "auto") return true;
  throw new ArrowQuantError(
    "E_LIMIT",
    `as one file the model has ${inlineBytes} bytes, the limit is ${MAX_INLINE_BYTES}`,
    {
      hint: "let the weights go to an external data file",
      details: { path: file.path, byteLength: inlineBytes, limit: MAX_INLINE_BYTES },
    },
  );
}

/** Writes payloads to the external data file and says so in their tensors. */
async function writeExternal(
  target: OutputTarget,
  location: string,
  payloads: ReadonlyMap<TensorProto, Payload>,
): Promise<number> {
  return withOutput(target, async (output) => {
    for (const [tensor, payload] of payloads) {
      // The gap stays a hole of the file: nothing is written there.
      let at = Math.ceil(output.byteLength / EXTERNAL_ALIGNMENT) * EXTERNAL_ALIGNMENT;
      const entries = { location, offset: String(at), length: String(payload.byteLength) };
      tensor.externalData = create(TensorProtoSchema, {
        externalData: Object.entries(entries).map(([key, value]) => ({ key, value })),
      }).externalData;
      tensor.dataLocation = TensorProto_DataLocation.EXTERNAL;
      for await (const chunk of payload.chunks()) {
        await output.writeAt(chunk, at);
        at += chunk.byteLength;
      }
    }
  });
}

async function writeSegments(target: OutputTarget, segments: readonly (Uint8Array | Payload)[]): Promise<number> {
  return withOutput(target, async (output) => {
    for (const segment of segments) {
      if (segment instanceof Uint8Array) await output.write(segment);
      else for await (const chunk of segment.chunks()) await output.write(chunk);
    }
  });
}

async function withOutput(target: OutputTarget, use: (output: OutputFile) => Promise<void>): Promise<number> {
  const output = await OutputFile.create(target.temporaryPath);
  try {
    await use(output);
    await output.sync();
    return output.byteLength;
  } finally {
    await output.close();
  }
}

/** The model as bytes in order, payloads in place of the bytes that are not in memory. */
function encodeModel(model: ModelProto, payloads: ReadonlyMap<TensorProto, Payload>): (Uint8Array | Payload)[] {
  const { segments } = encodeMessage(ModelProtoSchema, model, payloads) ?? {
    segments: [toBinary(ModelProtoSchema, model)],
  };
  return segments;
}

/** A message that holds payloads; null where it holds none, so that it can be encoded with what is around it. */
function encodeMessage(
  schema: DescMessage,
  message: Message,
  payloads: ReadonlyMap<TensorProto, Payload>,
): { segments: (Uint8Array | Payload)[]; byteLength: number } | null {
  const payload = payloads.get(message as TensorProto);
  if (payload !== undefined) {
    const head = toBinary(schema, message);
    const prefix = fieldPrefix(RAW_DATA_FIELD, payload.byteLength);
    return { segments: [head, prefix, payload], byteLength: head.length + prefix.length + payload.byteLength };
  }
  // Fields of which some message holds payloads are written by hand, all their messages in order; the rest by
  // the library. Fields may stand in any order (protobuf's encoding spec).
  const children = [...childMessages(schema, message)].map(({ number, schema: childSchema, child }) => {
    return { number, schema: childSchema, child, encoded: encodeMessage(childSchema, child, payloads) };
  });
  const byHand = new Set(children.filter(({ encoded }) => encoded !== null).map(({ number }) => number));
  if (byHand.size === 0) return null;
  const segments: (Uint8Array | Payload)[] = [toBinary(schema, withoutFields(schema, message, byHand))];
  for (const { number, schema: childSchema, child, encoded } of children) {
    if (!byHand.has(number)) continue;
    const body = encoded?.segments ?? [toBinary(childSchema, child)];
    segments.push(
      fieldPrefix(
        number,
        body.reduce((sum, segment) => sum + segment.byteLength, 0),
      ),
    );
    for (const segment of body) segments.push(segment);
  }
  return { segments, byteLength: segments.reduce((sum, segment) => sum + segment.byteLength, 0) };
}

function fieldPrefix(number: number, byteLength: number): Uint8Array {
  return new BinaryWriter().tag(number, WireType.LengthDelimited).uint32(byteLength).finish();
}

/** A shallow copy without some message fields; unknown fields stay. */
function withoutFields(schema: DescMessage, message: Message, numbers: ReadonlySet<number>): Message {
  const copy = Object.assign(Object.create(Object.getPrototypeOf(message)), message) as Record<string, unknown>;
  for (const field of schema.fields) {
    if (numbers.has(field.number)) copy[field.localName] = field.fieldKind === "list" ? [] : undefined;
  }
  return copy as unknown as Message;
}
