/**
 * Quantization of layer inputs as nodes of the graph: FORMAT.md's formula
 * `x̂ = (clamp(round(x / s) + z, 0, 2^bits − 1) − z) · s`, every step one float32 operation.
 *
 * Where all zero points are whole numbers of a byte it is QuantizeLinear → Clip → DequantizeLinear on uint8, the
 * operators that runtimes have kernels for; elsewhere the formula is spelled out, with the same results.
 */
import { ArrowQuantError } from "../../errors.js";
import { quoteName } from "../json.js";
import { type GraphBuilder, integerAttribute, integersAttribute } from "./graph-builder.js";
import { type GraphProto, type NodeProto, TensorProto_DataType } from "./onnx-pb.js";

/** Scale and zero point of a layer's input, by what they depend on. */
export type ActivationMode =
  | {
      readonly kind: "time";
      /** The graph's input that holds the time; its first element counts. */
      readonly timeInput: string;
      /** Ascending; group i holds the times from `starts[i]` on. Times before `starts[1]` are in group 0. */
      readonly starts: readonly number[];
      /** One per group. */
      readonly scales: Float32Array;
      /** One per group. */
      readonly zeroPoints: Float32Array;
    }
  | { readonly kind: "static"; readonly scale: number; readonly zeroPoint: number }
  /** Computed as the graph runs, for each position of all axes but the channels'. */
  | { readonly kind: "dynamic-token" };

export interface ActivationQuantizer {
  /** Value of the main graph: the input of one or more layers. */
  readonly value: string;
  /** Nodes that get the quantized value instead; by name, or by first output where they have none. */
  readonly consumers: readonly string[];
  /** 2 … 8 */
  readonly bits: number;
  /** Per channel: the value is divided by it before quantization and multiplied after. */
  readonly smoothing: Float32Array | null;
  /** The channels' axis; of values whose rank the graph does not show, counted from the end (−1 is the last). */
  readonly channelAxis: number;
  readonly mode: ActivationMode;
}

/** Scale and zero point as names of values; `zeroPoint` uint8 where `kind` says so, else float32. */
interface Parameters {
  readonly kind: "uint8" | "float";
  readonly scale: string;
  readonly zeroPoint: string;
}

/** Element types that layers compute in; all but float32 are converted before and after. */
const FLOAT_TYPES: ReadonlySet<number> = new Set([
  TensorProto_DataType.FLOAT,
  TensorProto_DataType.FLOAT16,
  TensorProto_DataType.BFLOAT16,
  TensorProto_DataType.DOUBLE,
]);

/** ReduceMin and ReduceMax take their axes as an input from this operator set on, before as an attribute. */
const OPSET_OF_AXES_INPUT = 18n;

/** Smallest normal float32: a scale that turns a token of zeros into zeros rather than 0 / 0. */
const SMALLEST_SCALE = 2 ** -126;

/** Makes the nodes of quantizers in one graph. */
export class ActivationNodes {
  readonly #graph: GraphProto;
  readonly #builder: GraphBuilder;
  readonly #opset: bigint;
  readonly #groupIndices = new Map<string, string>();
  readonly #leading: NodeProto[] = [];

  constructor(graph: GraphProto, builder: GraphBuilder, opset: bigint) {
    this.#graph = graph;
    this.#builder = builder;
    this.#opset = opset;
  }

  /** Nodes that read the graph's inputs alone and stand before all others. */
  get leading(): readonly NodeProto[] {
    return this.#leading;
  }

  /** Nodes that quantize a value, and the name of what comes out. `E_GRAPH` where the graph lacks what they need. */
  build(quantizer: ActivationQuantizer, consumers: readonly NodeProto[]): { nodes: NodeProto[]; output: string } {
    const { value, bits } = quantizer;
    const builder = this.#builder;
    // First, while no nodes wait in the builder: it takes those of the group index for the leading ones.
    const fixed = quantizer.mode.kind === "dynamic-token" ? null : this.#fixedParameters(quantizer, quantizer.mode);
    const dataType = elementTypeOf(this.#graph, value, consumers);
    const isFloat = dataType === TensorProto_DataType.FLOAT;
    const smoothing = this.#smoothing(quantizer, consumers);
    let x = isFloat ? value : this.#cast(value, TensorProto_DataType.FLOAT, value);
    if (smoothing !== null) x = builder.node("Div", [x, smoothing], value);
    const parameters = fixed ?? this.#tokenParameters(quantizer, x);
    x =
      parameters.kind === "uint8"
        ? this.#inBytes(value, x, bits, parameters)
        : this.#inFloats(value, x, bits, parameters);
    if (smoothing !== null) x = builder.node("Mul", [x, smoothing], value);
    if (!isFloat) x = this.#cast(x, dataType, value);
    return { nodes: builder.takeNodes(), output: x };
  }

  #fixedParameters(
    quantizer: ActivationQuantizer,
    mode: Exclude<ActivationMode, { kind: "dynamic-token" }>,
  ): Parameters {
    const isStatic = mode.kind === "static";
    const scales = isStatic ? Float32Array.of(mode.scale) : mode.scales;
    const zeroPoints = isStatic ? Float32Array.of(mode.zeroPoint) : mode.zeroPoints;
    const starts = isStatic ? [0] : mode.starts;
    checkParameters(quantizer.value, starts, scales, zeroPoints);
    const isBytes = zeroPoints.every((zeroPoint) => Number.isInteger(zeroPoint) && zeroPoint >= 0 && zeroPoint <= 255);
    const zeroPointValues = isBytes
      ? ({ type: "uint8", values: Uint8Array.from(zeroPoints) } as const)
      : ({ type: "float", values: zeroPoints } as const);
    const kind = zeroPointValues.type;
    const builder = this.#builder;
    if (isStatic || scales.length === 1) {
      const scale = builder.constant({ type: "float", values: scales });
      return { kind, scale, zeroPoint: builder.constant(zeroPointValues) };
    }
    const index = this.#groupIndex(mode.timeInput, starts);
    const shape = [scales.length];
    const scale = builder.constant({ type: "float", values: scales }, shape);
    const zeroPoint = builder.constant(zeroPointValues, shape);
    return {
      kind,
      scale: builder.node("Gather", [scale, index], quantizer.value),
      zeroPoint: builder.node("Gather", [zeroPoint, index], quantizer.value),
    };
  }

  /** The number of starts, but for the first, that the time has reached: one node chain for all that share it. */
  #groupIndex(timeInput: string, starts: readonly number[]): string {
    const key = JSON.stringify([timeInput, starts]);
    const known = this.#groupIndices.get(key);
    if (known !== undefined) return known;
    const builder = this.#builder;
    const dataType = inputTypeOf(this.#graph, timeInput);
    const all = builder.constant({ type: "int64", values: BigInt64Array.of(-1n) }, [1]);
    const zero = builder.constant({ type: "int64", values: BigInt64Array.of(0n) });
    const flat = builder.node("Reshape", [timeInput, all], timeInput);
    const first = builder.node("Gather", [flat, zero], timeInput);
    const time = this.#cast(first, TensorProto_DataType.DOUBLE, timeInput);
    const bounds = Float64Array.from(starts.slice(1));
    let reached = builder.constant({ type: "double", values: bounds }, [bounds.length]);
    if (FLOAT_TYPES.has(dataType)) {
      // Rounded as the time was on its way into the model: a sigma of 0.7 is at the start 0.7 in float32 too.
      const rounded = this.#cast(reached, dataType, timeInput);
      reached = this.#cast(rounded, TensorProto_DataType.DOUBLE, timeInput);
    }
    const isBefore = builder.node("Less", [time, reached], timeInput);
    const isReached = builder.node("Not", [isBefore], timeInput);
    const counts = this.#cast(isReached, TensorProto_DataType.INT64, timeInput);
    const index = builder.node("ReduceSum", [counts], timeInput, [integerAttribute("keepdims", 0)]);
    this.#leading.push(...builder.takeNodes());
    this.#groupIndices.set(key, index);
    return index;
  }

  /** Range of each token, 0 included, so that 0 stays 0. */
  #tokenParameters({ value, bits, channelAxis }: ActivationQuantizer, x: string): Parameters {
    const builder = this.#builder;
    const zero = this.#float(0);
    const high = builder.node("Max", [this.#reduce("ReduceMax", x, channelAxis, value), zero], value);
    const low = builder.node("Min", [this.#reduce("ReduceMin", x, channelAxis, value), zero], value);
    const range = builder.node("Sub", [high, low], value);
    const step = builder.node("Div", [range, this.#float(2 ** bits - 1)], value);
    const scale = builder.node("Max", [step, this.#float(SMALLEST_SCALE)], value);
    const steps = builder.node("Div", [builder.node("Neg", [low], value), scale], value);
    return { kind: "float", scale, zeroPoint: builder.node("Round", [steps], value) };
  }

  #reduce(opType: "ReduceMax" | "ReduceMin", x: string, axis: number, about: string): string {
    const keep = integerAttribute("keepdims", 1);
    if (this.#opset < OPSET_OF_AXES_INPUT) {
      return this.#builder.node(opType, [x], about, [keep, integersAttribute("axes", [axis])]);
    }
    const axes = this.#builder.constant({ type: "int64", values: BigInt64Array.of(BigInt(axis)) }, [1]);
    return this.#builder.node(opType, [x, axes], about, [keep]);
  }

  #inBytes(value: string, x: string, bits: number, { scale, zeroPoint }: Parameters): string {
    let codes = this.#builder.node("QuantizeLinear", [x, scale, zeroPoint], value);
    if (bits < 8) {
      // QuantizeLinear itself clamps to 0 … 255.
      const highest = this.#builder.constant({ type: "uint8", values: Uint8Array.of(2 ** bits - 1) });
      codes = this.#builder.node("Clip", [codes, "", highest], value);
    }
    return this.#builder.node("DequantizeLinear", [codes, scale, zeroPoint], value);
  }

  #inFloats(value: string, x: string, bits: number, { scale, zeroPoint }: Parameters): string {
    const builder = this.#builder;
    const steps = builder.node("Round", [builder.node("Div", [x, scale], value)], value);
    const shifted = builder.node("Add", [steps, zeroPoint], value);
    const codes = builder.node("Clip", [shifted, this.#float(0), this.#float(2 ** bits - 1)], value);
    return builder.node("Mul", [builder.node("Sub", [codes, zeroPoint], value), scale], value);
  }

  /** The smoothing factors as a constant that broadcasts along the channels' axis. */
  #smoothing({ value, smoothing, channelAxis }: ActivationQuantizer, consumers: readonly NodeProto[]): string | null {
    if (smoothing === null) return null;
    for (const factor of smoothing) {
      if (!(factor > 0 && factor < Infinity)) refuse(value, `a smoothing factor is ${factor}`);
    }
    const axesAfter = channelAxis < 0 ? -channelAxis - 1 : rankOf(this.#graph, value, consumers) - channelAxis - 1;
    const shape = [smoothing.length, ...new Array<number>(axesAfter).fill(1)];
    return this.#builder.constant({ type: "float", values: smoothing }, shape);
  }

  #float(value: number): string {
    return this.#builder.constant({ type: "float", values: Float32Array.of(value) });
  }

  #cast(value: string, dataType: number, about: string): string {
    return this.#builder.node("Cast", [value], about, [integerAttribute("to", dataType)]);
  }
}

function refuse(value: string, problem: string): never {
  throw new ArrowQuantError("E_GRAPH", `cannot quantize value ${quoteName(value)}: ${problem}`, { details: { value } });
}

function checkParameters(
  value: string,
  starts: readonly number[],
  scales: Float32Array,
  zeroPoints: Float32Array,
): void {
  if (scales.length === 0 || scales.length !== zeroPoints.length || scales.length !== starts.length) {
    refuse(value, `${starts.length} starts, ${scales.length} scales and ${zeroPoints.length} zero points`);
  }
  for (const scale of scales) if (!(scale > 0 && scale < Infinity)) refuse(value, `a scale is ${scale}`);
  for (const zeroPoint of zeroPoints) if (!Number.isFinite(zeroPoint)) refuse(value, `a zero point is ${zeroPoint}`);
  for (let index = 2; index < starts.length; index++) {
    const [before, start] = [starts[index - 1] as number, starts[index] as number];
    if (!(before < start)) refuse(value, `its time groups do not ascend: ${before}, then ${start}`);
  }
}

function inputTypeOf(graph: GraphProto, name: string): number {
  const type = graph.input.find((input) => input.name === name)?.type?.value;
  if (type?.case === "tensorType") return type.value.elemType;
  throw new ArrowQuantError("E_GRAPH", `the graph has no input tensor ${quoteName(name)} that holds the time`, {
    details: { timeInput: name },
  });
}

/** As the graph says it, else as the layers' constants have it, which must be of the same type. */
function elementTypeOf(graph: GraphProto, value: string, consumers: readonly NodeProto[]): number {
  const info = [...graph.valueInfo, ...graph.input, ...graph.output].find(({ name }) => name === value);
  const operands = new Set(consumers.flatMap(({ input }) => input).filter((name) => name !== value));
  const constant = graph.initializer.find(({ name }) => operands.has(name));
  const type = info?.type?.value;
  const dataType = type?.case === "tensorType" ? type.value.elemType : constant?.dataType;
  if (dataType === undefined) return TensorProto_DataType.FLOAT;
  if (!FLOAT_TYPES.has(dataType)) refuse(value, `its elements are of type ${dataType}, not floating-point numbers`);
  return dataType;
}

/** The rank of a convolution's input, which is that of its kernel. */
function rankOf(graph: GraphProto, value: string, consumers: readonly NodeProto[]): number {
  for (const { opType, input, attribute } of consumers) {
    if (opType !== "Conv") continue;
    const kernel = graph.initializer.find(({ name }) => name === input[1]);
    if (kernel !== undefined) return kernel.dims.length;
    const kernelShape = attribute.find(({ name }) => name === "kernel_shape");
    if (kernelShape !== undefined) return kernelShape.ints.length + 2;
  }
  return refuse(value, "its rank is not known, so its channel axis must be counted from the end");
}
