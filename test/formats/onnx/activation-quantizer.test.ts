import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ActivationMode, ActivationQuantizer } from "../../../dist/formats/onnx/activation-quantizer.js";
import { cloneModel, quantizeActivations } from "../../../dist/formats/onnx/edit.js";
import type { ModelProto } from "../../../dist/formats/onnx/onnx-pb.js";
import { type OnnxFile, readOnnx } from "../../../dist/formats/onnx/read.js";
import { writeOnnx } from "../../../dist/formats/onnx/write.js";
import { floatsOf, readSafetensors, type StoredTensor } from "../../quantize/methods/vectors.js";
import {
  ATTRIBUTE,
  denoiserFeeds,
  encode,
  type Fed,
  fed,
  floats,
  model,
  node,
  runEach,
  runOnce,
  SHIPPED,
  TYPE,
  value,
} from "./graphs.js";

const f32 = Math.fround;

/** To the nearest whole number, ties to even. */
function roundEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/** FORMAT.md: x̂ = (clamp(round(x / s) + z, 0, 2^bits − 1) − z) · s, every step one float32 operation. */
function quantizeNumber(x: number, scale: number, zeroPoint: number, bits: number): number {
  const code = Math.min(Math.max(f32(roundEven(f32(x / scale)) + zeroPoint), 0), 2 ** bits - 1);
  return f32(f32(code - zeroPoint) * scale);
}

/** [samples, channels, positions] or [samples, positions, channels]: how the elements of a value lie. */
interface Layout {
  readonly kind: "linear" | "conv";
  readonly samples: number;
  readonly positions: number;
  readonly channels: number;
}

function channelOf(index: number, { kind, positions, channels }: Layout): number {
  return kind === "linear" ? index % channels : Math.floor(index / positions) % channels;
}

/** Elements of one token, that is one position of one sample. */
function tokenOf(index: number, { kind, positions, channels }: Layout): number {
  if (kind === "linear") return Math.floor(index / channels);
  return Math.floor(index / (positions * channels)) * positions + (index % positions);
}

function evaluate(x: Float32Array, quantizer: ActivationQuantizer, time: number, layout: Layout): number[] {
  const { mode, bits, smoothing } = quantizer;
  const factor = (index: number): number => smoothing?.[channelOf(index, layout)] ?? 1;
  const smoothed = Array.from(x, (element, index) => f32(element / factor(index)));
  const parameters = parametersOf(smoothed, mode, bits, time, layout);
  return smoothed.map((element, index) => {
    const [scale, zeroPoint] = parameters(index);
    return f32(quantizeNumber(element, scale, zeroPoint, bits) * factor(index));
  });
}

function parametersOf(
  x: readonly number[],
  mode: ActivationMode,
  bits: number,
  time: number,
  layout: Layout,
): (index: number) => [number, number] {
  if (mode.kind === "static") return () => [f32(mode.scale), f32(mode.zeroPoint)];
  if (mode.kind === "time") {
    const group = mode.starts.findLastIndex((start, index) => index === 0 || start <= time);
    return () => [mode.scales[group] as number, mode.zeroPoints[group] as number];
  }
  const lows = new Map<number, number>();
  const highs = new Map<number, number>();
  for (const [index, element] of x.entries()) {
    const token = tokenOf(index, layout);
    lows.set(token, Math.min(lows.get(token) ?? 0, element));
    highs.set(token, Math.max(highs.get(token) ?? 0, element));
  }
  return (index) => {
    const [low, high] = [lows.get(tokenOf(index, layout)) as number, highs.get(tokenOf(index, layout)) as number];
    const scale = Math.max(f32(f32(high - low) / (2 ** bits - 1)), 2 ** -126);
    return [scale, roundEven(f32(-low / scale))];
  };
}

/** A layer that changes nothing, so that what comes out is what the layer read. */
function passThrough(layout: Layout, timeType: number): ModelProto {
  const { kind, samples, positions, channels } = layout;
  const identity = Array.from({ length: channels * channels }, (_, at) => Number(at % (channels + 1) === 0));
  const isConv = kind === "conv";
  const weight = floats("w", isConv ? [channels, channels, 1, 1] : [channels, channels], identity);
  const shape = isConv ? [samples, channels, 1, positions] : [samples, positions, channels];
  return model({
    node: [
      { ...node(isConv ? "Conv" : "MatMul", ["x", "w"], "y"), name: "layer" },
      // Reads the value too, but is no layer.
      node("Neg", ["x"], "other"),
    ],
    initializer: [weight],
    input: [value("x", TYPE.float, shape), value("time", timeType, ["batch"])],
    output: [value("y", TYPE.float), value("other", TYPE.float)],
  });
}

const TIMES = {
  int64: { elemType: TYPE.int64, feed: (time: number) => BigInt64Array.of(BigInt(Math.floor(time)), -7n) },
  int32: { elemType: TYPE.int32, feed: (time: number) => Int32Array.of(Math.floor(time), -7) },
  float32: { elemType: TYPE.float, feed: (time: number) => Float32Array.of(time, -7) },
  float64: { elemType: TYPE.double, feed: (time: number) => Float64Array.of(time, -7) },
} satisfies Record<string, { elemType: number; feed: (time: number) => Fed["data"] }>;

const scale = fc.double({ min: 1e-3, max: 2, noNaN: true }).map(f32);
const wholeZeroPoint = fc.nat({ max: 255 });
const anyZeroPoint = fc.double({ min: -400, max: 400, noNaN: true }).map(f32);
/** Timesteps, and sigmas that float32 has no exact number for. */
const startTime = fc.oneof(
  fc.nat({ max: 1000 }),
  fc.nat({ max: 800 }).map((n) => n / 10),
);
const mode: fc.Arbitrary<ActivationMode> = fc.oneof(
  fc.record({
    kind: fc.constant("static" as const),
    scale,
    zeroPoint: fc.oneof(wholeZeroPoint, anyZeroPoint),
  }),
  fc.constant({ kind: "dynamic-token" as const }),
  fc
    .tuple(
      fc.uniqueArray(startTime, {
        minLength: 1,
        maxLength: 6,
      }),
      fc.array(scale, { minLength: 6, maxLength: 6 }),
      fc.oneof(
        fc.array(wholeZeroPoint, { minLength: 6, maxLength: 6 }),
        fc.array(anyZeroPoint, { minLength: 6, maxLength: 6 }),
      ),
    )
    .map(([starts, scales, zeroPoints]) => ({
      kind: "time" as const,
      timeInput: "time",
      starts: starts.sort((a, b) => a - b),
      scales: Float32Array.from(scales.slice(0, starts.length)),
      zeroPoints: Float32Array.from(zeroPoints.slice(0, starts.length)),
    })),
);

describe("a quantized value", () => {
  test("is what FORMAT.md's formula gives, to the bit, in the layer and nowhere else", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          layout: fc.record({
            kind: fc.constantFrom("linear" as const, "conv" as const),
            samples: fc.integer({ min: 1, max: 2 }),
            positions: fc.integer({ min: 1, max: 3 }),
            channels: fc.integer({ min: 1, max: 5 }),
          }),
          bits: fc.integer({ min: 2, max: 8 }),
          mode,
          isSmoothed: fc.boolean(),
          timeKind: fc.constantFrom(...(Object.keys(TIMES) as (keyof typeof TIMES)[])),
          startIndex: fc.nat({ max: 5 }),
          timeShift: fc.constantFrom(0, 0, -1, 1, -1e6, 1e6),
          // Halves give ties, and all zeros an empty range.
          elements: fc.array(
            fc.oneof(
              fc.integer({ min: -40, max: 40 }).map((n) => n / 2),
              fc.double({ min: -300, max: 300, noNaN: true }),
            ),
            { minLength: 30, maxLength: 30 },
          ),
          isZero: fc.boolean(),
          factors: fc.array(scale, { minLength: 5, maxLength: 5 }),
        }),
        async ({ layout, bits, isSmoothed, timeKind, startIndex, timeShift, elements, isZero, factors, ...rest }) => {
          const { kind, samples, positions, channels } = layout;
          const x = Float32Array.from(elements.slice(0, samples * positions * channels), (n) => (isZero ? 0 : n));
          const quantizer: ActivationQuantizer = {
            value: "x",
            consumers: ["layer"],
            bits,
            smoothing: isSmoothed ? Float32Array.from(factors.slice(0, channels)) : null,
            channelAxis: kind === "conv" ? 1 : -1,
            mode: rest.mode,
          };
          const start = rest.mode.kind === "time" ? (rest.mode.starts[startIndex] ?? 0) : 0;
          const feedTime = TIMES[timeKind];
          const time = timeKind.startsWith("int") ? Math.floor(start + timeShift) : start + timeShift;
          const proto = passThrough(layout, feedTime.elemType);
          quantizeActivations(proto, [quantizer]);
          const shape = kind === "conv" ? [samples, channels, 1, positions] : [samples, positions, channels];
          const feeds = { x: fed(x, shape), time: fed(feedTime.feed(time), [2]) };
          // Optimized, products with one number each (a scale, the factor of a lone channel) are folded into one,
          // which rounds once where the formula rounds twice.
          const { y, other } = await runOnce(encode(proto), feeds, "disabled");
          // Zeros of either sign are one number here: the layer's sum has no negative zero.
          const expected = evaluate(x, quantizer, time, layout).map((element) => element + 0);
          expect(Array.from(y?.data as Float32Array, (element) => element + 0)).toEqual(expected);
          expect(Array.from(other?.data as Float32Array)).toEqual(Array.from(x, (element) => f32(-element)));
        },
      ),
      { numRuns: 150 },
    );
  });

  test("is computed in float32 where the layer's numbers are float16", async () => {
    const cast = (from: string, to: string, dataType: number) =>
      node("Cast", [from], to, [{ name: "to", type: ATTRIBUTE.int, i: BigInt(dataType) }]);
    const one = { name: "one", dataType: TYPE.float16, dims: [4n], int32Data: [0x3c00, 0x3c00, 0x3c00, 0x3c00] };
    const proto = model({
      node: [
        cast("x", "half", TYPE.float16),
        node("Mul", ["half", "one"], "product"),
        cast("product", "y", TYPE.float),
      ],
      initializer: [one],
      input: [value("x", TYPE.float, [4])],
      output: [value("y", TYPE.float)],
    });
    const [consumers, smoothing] = [["product.Mul"], Float32Array.of(1, 2, 4, 8)];
    const mode = { kind: "static", scale: 0.5, zeroPoint: 3 } as const;
    quantizeActivations(proto, [{ value: "half", consumers, bits: 4, smoothing, channelAxis: -1, mode }]);
    const { y } = await runOnce(encode(proto), { x: fed(Float32Array.of(-0.75, 100, -100, 9), [4]) });
    expect(y?.data).toEqual(Float32Array.of(-1, 12, -6, 8));
  });
});

describe("quantizers in one graph", () => {
  /** x feeds three layers, y one of them too and another. */
  function attention(): ModelProto {
    const weight = floats("w", [2, 2], [1, 0, 0, 1]);
    return model({
      node: [
        node("Neg", ["x"], "h"),
        { ...node("MatMul", ["h", "w"], "q"), name: "q" },
        // No name: known by its output.
        { ...node("MatMul", ["h", "w"], "k"), name: "" },
        { ...node("MatMul", ["h", "w"], "v"), name: "v" },
        { ...node("MatMul", ["q", "w"], "out"), name: "out" },
      ],
      initializer: [weight],
      input: [value("x", TYPE.float, [1, 2]), value("t", TYPE.int64, ["batch"])],
      output: ["q", "k", "v", "out"].map((name) => value(name, TYPE.float)),
    });
  }

  const time = (scales: number[], starts = [0, 100]): ActivationMode => ({
    kind: "time",
    timeInput: "t",
    starts,
    scales: Float32Array.from(scales),
    zeroPoints: Float32Array.from(scales, () => 8),
  });
  const base = { bits: 4, smoothing: null, channelAxis: -1 } as const;

  function countOps(proto: ModelProto, opType: string): number {
    return (proto.graph?.node ?? []).filter((each) => each.opType === opType).length;
  }

  test("quantize a shared value once and look the time up once", async () => {
    const proto = attention();
    quantizeActivations(proto, [
      { ...base, value: "h", consumers: ["q", "k", "v"], mode: time([1, 0.5]) },
      { ...base, value: "q", consumers: ["out"], mode: time([2, 4]) },
    ]);
    expect(countOps(proto, "QuantizeLinear")).toBe(2);
    expect(countOps(proto, "Less")).toBe(1);
    const feeds = (t: bigint) => ({
      x: fed(Float32Array.of(-2.3, 1.2), [1, 2]),
      t: fed(BigInt64Array.of(t), [1]),
    });
    const early = await runOnce(encode(proto), feeds(99n));
    const late = await runOnce(encode(proto), feeds(100n));
    for (const name of ["q", "k", "v"]) {
      expect(early[name]?.data).toEqual(Float32Array.of(2, -1));
      expect(late[name]?.data).toEqual(Float32Array.of(2.5, -1));
    }
    expect(early["out"]?.data).toEqual(Float32Array.of(2, 0));
    expect(late["out"]?.data).toEqual(Float32Array.of(4, 0));
  });

  test("may treat the readers of one value differently", async () => {
    const proto = attention();
    const fixed = (scale: number): ActivationMode => ({ kind: "static", scale, zeroPoint: 8 });
    quantizeActivations(proto, [
      { ...base, value: "h", consumers: ["q"], mode: fixed(1) },
      { ...base, value: "h", consumers: ["v"], mode: fixed(2) },
    ]);
    const { q, k, v } = await runOnce(encode(proto), {
      x: fed(Float32Array.of(-2.75, 1), [1, 2]),
      t: fed(BigInt64Array.of(0n), [1]),
    });
    expect([q, k, v].map((tensor) => tensor?.data[0])).toEqual([3, 2.75, 2]);
  });

  test.each([
    ["a consumer that is not there", { consumers: ["nobody"] }],
    ["a consumer that reads another value", { consumers: ["out"] }],
    ["a consumer in a subgraph", { consumers: ["inner"] }],
    ["1 bit", { bits: 1 }],
    ["9 bits", { bits: 9 }],
    ["a scale of zero", { mode: { kind: "static", scale: 0, zeroPoint: 0 } }],
    ["a scale that is no number", { mode: { kind: "static", scale: Number.NaN, zeroPoint: 0 } }],
    ["an infinite zero point", { mode: { kind: "static", scale: 1, zeroPoint: Infinity } }],
    ["fewer scales than groups", { mode: time([1]) }],
    ["no groups", { mode: time([], []) }],
    ["groups that do not ascend", { mode: time([1, 1, 1], [0, 5, 5]) }],
    ["a time input that is none", { mode: { ...time([1, 2]), timeInput: "h" } }],
    ["a smoothing factor of zero", { smoothing: Float32Array.of(1, 0) }],
    ["an axis from the front where the rank is unknown", { smoothing: Float32Array.of(1, 1), channelAxis: 1 }],
  ])("are refused for %s", (_, wrong) => {
    const proto = attention();
    const g = { name: "body", node: [{ ...node("Neg", ["h"], "inside"), name: "inner" }] };
    const outer = model({
      node: [{ opType: "If", attribute: [{ name: "then_branch", type: ATTRIBUTE.graph, g }] }],
    });
    proto.graph?.node.push(...(outer.graph?.node ?? []));
    const quantizer = { ...base, value: "h", consumers: ["q"], mode: time([1, 2]), ...wrong } as ActivationQuantizer;
    expect(() => quantizeActivations(proto, [quantizer])).toThrow(expect.objectContaining({ code: "E_GRAPH" }));
  });

  test.each([
    [12, false],
    [11, true],
    [22, false],
  ])("need operator set 12 (%i)", async (opset, isRefused) => {
    const proto = attention();
    (proto.opsetImport[0] as { version: bigint }).version = BigInt(opset);
    const dynamic = { ...base, value: "h", consumers: ["q"], mode: { kind: "dynamic-token" } } as const;
    const timed = { ...base, value: "h", consumers: ["k"], mode: time([1, 2]) };
    const quantize = () => quantizeActivations(proto, [dynamic, timed]);
    if (isRefused) return expect(quantize).toThrow(expect.objectContaining({ code: "E_GRAPH" }));
    quantize();
    const feeds = { x: fed(Float32Array.of(-10, 5), [1, 2]), t: fed(BigInt64Array.of(0n), [1]) };
    const { q, k } = await runOnce(encode(proto), feeds);
    expect(Array.from(k?.data as Float32Array)).toEqual([7, -5]);
    expect(Array.from(q?.data as Float32Array, Math.round)).toEqual([10, -5]);
  });
});

/** shared/models/README.md, activations of 28 layers of dit-mnist: error of the prediction by another implementation. */
const REFERENCE = { "static 8": 0.0064, "time 6": 0.0225, "time 4": 0.1258, "token 4": 0.0607 };

describe.skipIf(SHIPPED.length === 0)("dit-mnist", () => {
  test("errs as another implementation does with the same ranges", async () => {
    const dit = SHIPPED[0] as (typeof SHIPPED)[number];
    const file = await readOnnx(dit.path);
    const { tensors: ranges } = readSafetensors(join(dit.folder, "activations.safetensors"));
    const { tensors: reference } = readSafetensors(join(dit.folder, "eval_reference.safetensors"));
    const folder = await mkdtemp(join(tmpdir(), "arrowquant-activations-"));
    const path = join(folder, "quantized.onnx");
    for (const [name, expected] of Object.entries(REFERENCE)) {
      const [kind, bits] = name.split(" ") as [string, string];
      const proto = cloneModel(file.model);
      quantizeActivations(proto, ditQuantizers(file, ranges, kind, Number(bits)));
      await writeOnnx(file, { path, model: proto, replaced: new Map(), externalData: "auto" });
      const error = await predictionError(path, reference);
      expect(Math.abs(error - expected), name).toBeLessThan(0.0001 + 0.01 * expected);
    }
    await rm(folder, { recursive: true });
  });
});

function ditQuantizers(
  file: OnnxFile,
  ranges: ReadonlyMap<string, StoredTensor>,
  kind: string,
  bits: number,
): ActivationQuantizer[] {
  const quantizers = new Map<string, { consumers: string[]; module: string }>();
  for (const { name, opType, input } of file.model.graph?.node ?? []) {
    const module = name
      .slice(1)
      .replaceAll("/", ".")
      .replace(/\.(MatMul|Gemm)$/, "");
    const isLayer = (opType === "MatMul" || opType === "Gemm") && file.initializers.has(input[1] ?? "");
    if (!isLayer || !/^transformer_blocks\.\d+\.(attn1|ff|norm1\.linear)/.test(module)) continue;
    const known = quantizers.get(input[0] as string);
    if (known === undefined) quantizers.set(input[0] as string, { consumers: [name], module });
    else known.consumers.push(name);
  }
  return [...quantizers].map(([valueName, { consumers, module }]) => {
    const parameters = groupRanges(ranges, module).map(([low, high]) => rangeParameters(low, high, bits));
    const overall = groupRanges(ranges, module).reduce((a, b) => [Math.min(a[0], b[0]), Math.max(a[1], b[1])]);
    const [scale, zeroPoint] = rangeParameters(...overall, bits);
    const modes: Record<string, ActivationMode> = {
      static: { kind: "static", scale, zeroPoint },
      token: { kind: "dynamic-token" },
      time: {
        kind: "time",
        timeInput: "timestep",
        starts: parameters.map((_, index) => index * 100),
        scales: Float32Array.from(parameters, ([groupScale]) => groupScale),
        zeroPoints: Float32Array.from(parameters, ([, groupZeroPoint]) => groupZeroPoint),
      },
    };
    const mode = modes[kind] as ActivationMode;
    return { value: valueName, consumers, bits, smoothing: null, channelAxis: -1, mode };
  });
}

/** Least and largest input of a module in each of the ten groups. */
function groupRanges(ranges: ReadonlyMap<string, StoredTensor>, module: string): [number, number][] {
  const [lows, highs] = [ranges.get(`${module}.min`), ranges.get(`${module}.max`)];
  const channels = lows?.shape[1] ?? 0;
  const group = (all: Float32Array, index: number) => all.subarray(index * channels, (index + 1) * channels);
  return Array.from({ length: 10 }, (_, index) => [
    Math.min(...group(floatsOf(lows), index)),
    Math.max(...group(floatsOf(highs), index)),
  ]);
}

function rangeParameters(low: number, high: number, bits: number): [number, number] {
  const scaleOf = f32((Math.max(high, 0) - Math.min(low, 0)) / (2 ** bits - 1));
  return [scaleOf, roundEven(-Math.min(low, 0) / scaleOf)];
}

/** Mean over the timesteps of ‖p − reference‖ / ‖reference‖ (README, "prediction error"). */
async function predictionError(path: string, reference: ReadonlyMap<string, StoredTensor>): Promise<number> {
  const times = Array.from(new BigInt64Array((reference.get("step_t") as StoredTensor).bytes.slice().buffer), Number);
  const labels = new BigInt64Array((reference.get("step_class_labels") as StoredTensor).bytes.slice().buffer);
  const [samples, predictions] = [floatsOf(reference.get("step_x_t")), floatsOf(reference.get("step_pred"))];
  const size = samples.length / times.length;
  const inputs = times.map((time, index) => {
    const sample = samples.slice(index * size, (index + 1) * size);
    return { ...denoiserFeeds(labels.length, time, sample), class_labels: fed(labels, [labels.length]) };
  });
  const errors = (await runEach(path, inputs)).map((outputs, index) => {
    const wanted = predictions.subarray(index * size, (index + 1) * size);
    const error = wanted.map((element, at) => element - Number(outputs["noise_pred"]?.data[at]));
    return Math.hypot(...error) / Math.hypot(...wanted);
  });
  return errors.reduce((sum, error) => sum + error, 0) / errors.length;
}
