/**
 * Running ONNX graphs. ONNX Runtime is an optional peer of this package: it is loaded when a model is first to be
 * run, and everything that does not run models works without it.
 */
import { ArrowQuantError } from "../errors.js";
import { statOrThrow } from "../io/read.js";
import type { Dtype } from "../tensor/dtype.js";

/** Elements of a tensor: float16 as its 16 bits in a Uint16Array, BOOL as bytes of 0 and 1. */
export type RunArray = Float32Array | Float64Array | BigInt64Array | Int32Array | Uint8Array | Uint16Array;

/** A dense tensor, row-major. */
export interface RunTensor {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly data: RunArray;
}

/** An input or output of a graph; an axis without a fixed size has its name instead, perhaps an empty one. */
export interface RunValue {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly (number | string)[];
}

/** A loaded graph. One run at a time; it holds its weights until it is closed. */
export interface RunSession {
  readonly inputs: readonly RunValue[];
  readonly outputs: readonly RunValue[];
  /**
   * Runs the graph on one tensor per input; `outputs` names the outputs wanted, all without it.
   * Throws `E_GRAPH` where an input is missing or of another type or shape, an output is unknown, or a node fails.
   */
  run(feeds: Readonly<Record<string, RunTensor>>, outputs?: readonly string[]): Promise<Record<string, RunTensor>>;
  /** Frees the weights; closing twice is harmless. */
  close(): Promise<void>;
}

export interface Runtime {
  readonly name: string;
  readonly version: string;
  /**
   * Loads the graph at `modelPath`; `threads` is how many work on one node, by default as many as there are cores.
   * Throws `E_NOT_FOUND`, and `E_GRAPH` where the runtime refuses the graph.
   */
  open(modelPath: string, options?: { readonly threads?: number }): Promise<RunSession>;
}

const RUNTIME_PACKAGE = "onnxruntime-node";
/** Of the runtime's own message, in ours: enough for what it says of shapes, too little for a stack trace. */
const MAX_REASON_LENGTH = 400;
const INSTALL_HINT = `npm install ${RUNTIME_PACKAGE}`;

type Ort = typeof import("onnxruntime-node");
type OrtSession = import("onnxruntime-node").InferenceSession;
type OrtTensor = import("onnxruntime-node").Tensor;
type OrtType = OrtTensor["type"];

/** ONNX Runtime's types by ours; the runtime knows bfloat16 and float8 graphs only where they stay inside. */
const RUN_TYPES: Readonly<Partial<Record<Dtype, OrtType>>> = {
  F32: "float32",
  F64: "float64",
  F16: "float16",
  I64: "int64",
  I32: "int32",
  U8: "uint8",
  BOOL: "bool",
  U16: "uint16",
};

/**
 * The runtime, loaded on the first call.
 * Throws `E_RUNTIME`, with the line that installs it, where it is not there or its binary does not load.
 */
export async function loadRuntime(): Promise<Runtime> {
  const ort = await importRuntime();
  return {
    name: RUNTIME_PACKAGE,
    version: ort.env.versions.node ?? "unknown",
    open: (modelPath, options) => openSession(ort, modelPath, options?.threads),
  };
}

async function importRuntime(): Promise<Ort> {
  // A tool that runs in other people's CI sends nothing home; whoever sets the variable decides otherwise.
  process.env.ORT_DISABLE_TELEMETRY ??= "1";
  try {
    const module = await import("onnxruntime-node");
    return module.default;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    // A module that the package itself misses (its binary of this platform, say) has the code too.
    const isMissing = code === "ERR_MODULE_NOT_FOUND" && message.includes(RUNTIME_PACKAGE);
    throw new ArrowQuantError(
      "E_RUNTIME",
      isMissing
        ? `running a model needs ${RUNTIME_PACKAGE}, which is not installed`
        : `${RUNTIME_PACKAGE} cannot be loaded on ${process.platform}-${process.arch}: ${shorten(message)}`,
      { hint: INSTALL_HINT, details: { package: RUNTIME_PACKAGE, installed: !isMissing, reason: message }, cause },
    );
  }
}

async function openSession(ort: Ort, modelPath: string, threads: number | undefined): Promise<RunSession> {
  await statOrThrow(modelPath);
  let session: OrtSession;
  try {
    session = await ort.InferenceSession.create(modelPath, {
      executionProviders: ["cpu"],
      graphOptimizationLevel: "all",
      ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
      // Between two runs the kernels of this program work: the runtime's threads are not to spin meanwhile.
      extra: { session: { intra_op: { allow_spinning: "0" } } },
      // What goes wrong is thrown; warnings of the optimizer would go straight to stderr.
      logSeverityLevel: 4,
    });
  } catch (cause) {
    throw graphError(`${RUNTIME_PACKAGE} cannot load "${modelPath}"`, modelPath, cause);
  }
  try {
    return wrapSession(ort, session, modelPath);
  } catch (thrown) {
    await session.release();
    throw thrown;
  }
}

function wrapSession(ort: Ort, session: OrtSession, modelPath: string): RunSession {
  const inputs = session.inputMetadata.map((value) => describeValue(value, "input", modelPath));
  const outputs = session.outputMetadata.map((value) => describeValue(value, "output", modelPath));
  let isOpen = true;
  return {
    inputs,
    outputs,
    async run(feeds, wanted = outputs.map(({ name }) => name)) {
      const tensors: Record<string, OrtTensor> = {};
      for (const input of inputs) tensors[input.name] = feedTensor(ort, input, feeds[input.name], modelPath);
      const unknown = wanted.find((name) => !outputs.some((output) => output.name === name));
      if (unknown !== undefined) throw unknownOutput(unknown, outputs, modelPath);
      let results: Awaited<ReturnType<OrtSession["run"]>>;
      try {
        results = await session.run(tensors, wanted);
      } catch (cause) {
        throw graphError(`"${modelPath}" cannot be run`, modelPath, cause);
      }
      return Object.fromEntries(wanted.map((name) => [name, resultTensor(results[name] as OrtTensor)]));
    },
    async close() {
      if (isOpen) await session.release();
      isOpen = false;
    },
  };
}

type OrtMetadata = OrtSession["inputMetadata"][number];

function describeValue(value: OrtMetadata, kind: "input" | "output", modelPath: string): RunValue {
  const dtype = value.isTensor ? dtypeOf(value.type) : undefined;
  if (!value.isTensor || dtype === undefined) {
    const type = value.isTensor ? value.type : "no tensor";
    const message = `${kind} "${value.name}" of "${modelPath}" is ${type}, which cannot be passed on`;
    throw new ArrowQuantError("E_GRAPH", message, { details: { path: modelPath, [kind]: value.name, type } });
  }
  return { name: value.name, dtype, shape: value.shape };
}

function dtypeOf(type: OrtType): Dtype | undefined {
  return (Object.keys(RUN_TYPES) as Dtype[]).find((dtype) => RUN_TYPES[dtype] === type);
}

function feedTensor(ort: Ort, input: RunValue, tensor: RunTensor | undefined, modelPath: string): OrtTensor {
  const type = RUN_TYPES[input.dtype];
  if (tensor === undefined || type === undefined || tensor.dtype !== input.dtype) {
    const message = `input "${input.name}" of "${modelPath}" is ${input.dtype}, given was ${tensor?.dtype ?? "nothing"}`;
    const details = { path: modelPath, input: input.name, dtype: input.dtype, given: tensor?.dtype ?? null };
    throw new ArrowQuantError("E_GRAPH", message, { details });
  }
  try {
    return new ort.Tensor(type as "float32", tensor.data as Float32Array, tensor.shape);
  } catch (cause) {
    throw graphError(`input "${input.name}" of "${modelPath}" is no ${input.dtype} tensor`, modelPath, cause);
  }
}

function resultTensor(tensor: OrtTensor): RunTensor {
  const { data } = tensor;
  // Where JavaScript has a Float16Array the runtime hands that out, elsewhere a Uint16Array.
  const elements = tensor.type === "float16" ? bitsOf16(data as Uint16Array) : (data as RunArray);
  return { dtype: dtypeOf(tensor.type) as Dtype, shape: tensor.dims, data: elements };
}

function bitsOf16({ buffer, byteOffset, length }: Uint16Array): Uint16Array {
  return new Uint16Array(buffer, byteOffset, length);
}

function unknownOutput(name: string, outputs: readonly RunValue[], modelPath: string): ArrowQuantError {
  const names = outputs.map((output) => output.name);
  return new ArrowQuantError("E_GRAPH", `"${modelPath}" has no output "${name}"; it has: ${names.join(", ")}`, {
    details: { path: modelPath, output: name, outputs: names },
  });
}

function graphError(what: string, path: string, cause: unknown): ArrowQuantError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new ArrowQuantError("E_GRAPH", `${what}: ${shorten(reason)}`, { details: { path, reason }, cause });
}

/** The runtime's messages go over several lines and may hold a stack; the whole of them is in `details`. */
function shorten(message: string): string {
  return message.replace(/\s+/g, " ").trim().slice(0, MAX_REASON_LENGTH);
}
