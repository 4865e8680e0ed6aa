/**
 * Weights per second of every kernel on one core, and floating-point operations per second of those that multiply
 * matrices, SIMD and scalar, on data that lies in memory.
 * `node test/bench/kernels.mjs [--runs N]`; `benchKernels()` returns the figures.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

import { ActivationStats } from "../../dist/kernels/activation-stats.js";
import { ChunkQuantizer } from "../../dist/kernels/chunk-quantizer.js";
import { ChunkRebuilder } from "../../dist/kernels/chunk-rebuilder.js";
import { Converter } from "../../dist/kernels/converter.js";
import { factorLength, HessianFactor } from "../../dist/kernels/factor.js";
import { GgmlQuantizer } from "../../dist/kernels/ggml-quantizer.js";
import { Gram } from "../../dist/kernels/gram.js";
import { KERNEL_BUILDS, loadKernels } from "../../dist/kernels/load.js";
import { ROWS_PER_BLOCK, RowBlock } from "../../dist/kernels/row-block.js";
import { Staging } from "../../dist/kernels/staging.js";
import { findMethod } from "../../dist/quantize/methods/index.js";
import { BLOCKS, spanOf } from "../../dist/tensor/dtype.js";
import { BIT_WIDTHS } from "../../dist/tensor/layout.js";

const RESULTS = fileURLToPath(new URL("results/kernels.json", import.meta.url));

/** A slab as the engine reads them: rows that fit the second-level cache, 1 Mi weights in all. */
const ROWS = 256;
const COLS = 4096;

/** Aims of the project in weights per second, printed beside what was measured. */
const AIMS = { "rtn 4 bits g128 s6 z6": 800e6, "hqq 4 bits g128 s6 z6": 25e6, "mse 4 bits g128 s6 z6": 30e6 };

/** Normal weights of a usual size as float16 and float32, the same in every run. */
function makeWeights() {
  let state = 1;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  const normal = () => 0.04 * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  const floats = Float32Array.from({ length: ROWS * COLS }, normal);
  const kernels = loadKernels();
  const narrow = (outDtype) => {
    const converter = new Converter(kernels, shapeOf("F32", { outDtype }));
    converter.source(ROWS).set(new Uint8Array(floats.buffer));
    return converter.convert(ROWS).slice();
  };
  return { F32: new Uint8Array(floats.buffer), F16: narrow("F16"), BF16: narrow("BF16") };
}

/** Blocks whose scales are finite, with codes of all kinds. */
function makeBlocks(dtype) {
  const { byteLength } = spanOf(dtype, 0, ROWS * COLS);
  return Uint8Array.from({ length: byteLength }, (_, index) => (index * 41) & 0x3b);
}

const shapeOf = (sourceDtype, more) => ({
  cols: COLS,
  slabRows: ROWS,
  sourceDtype,
  sourceScale: "none",
  ...more,
});

function specOf(method, bits, groupSize, codeBits, more = {}) {
  return {
    bits,
    groupSize,
    symmetric: false,
    method,
    scaleBits: codeBits,
    zeroPointBits: codeBits,
    superGroupSize: codeBits === null ? null : 1024,
    weighting: "magnitude",
    preserveGain: true,
    ...more,
  };
}

/** A case sets everything up for one build and returns what is to be timed. */
function quantizing(weights, dtype, spec) {
  return (kernels) => {
    const shape = { rows: ROWS, cols: COLS, slabRows: ROWS, dtype, sourceScale: "none" };
    return () => {
      const quantizer = new ChunkQuantizer(kernels, findMethod(spec.method), spec, shape);
      quantizer.source(ROWS).set(weights[dtype]);
      const start = performance.now();
      quantizer.quantize(ROWS);
      return performance.now() - start;
    };
  };
}

function quantizingBlocks(weights, type) {
  return (kernels) => {
    const shape = { type, rows: ROWS, cols: COLS, slabRows: ROWS, dtype: "F16", sourceScale: "none", importance: null };
    return () => {
      const quantizer = new GgmlQuantizer(kernels, shape);
      quantizer.source(ROWS).set(weights.F16);
      const start = performance.now();
      quantizer.quantize(ROWS);
      return performance.now() - start;
    };
  };
}

function stored(weights, spec) {
  const kernels = loadKernels();
  const shape = { rows: ROWS, cols: COLS, slabRows: ROWS, dtype: "F16", sourceScale: "none" };
  const quantizer = new ChunkQuantizer(kernels, findMethod(spec.method), spec, shape);
  quantizer.source(ROWS).set(weights.F16);
  quantizer.quantize(ROWS);
  return {
    ...quantizer.outputs(),
    ...{
      bits: spec.bits,
      storageBits: spec.bits,
      groupSize: spec.groupSize,
      superGroupSize: spec.superGroupSize,
    },
    ...{ scaleBits: spec.scaleBits, zeroPointBits: spec.method === "r2q" ? null : spec.zeroPointBits },
    ...{ isR2q: spec.method === "r2q", equalizationScales: null, rows: ROWS, cols: COLS },
  };
}

function rebuilding(weights, spec, outDtype) {
  const chunk = stored(weights, spec);
  return (kernels) => () => {
    const rebuilder = new ChunkRebuilder(kernels, chunk, { slabRows: ROWS, outDtype });
    const start = performance.now();
    rebuilder.rebuild(ROWS);
    return performance.now() - start;
  };
}

function comparing(weights, spec) {
  const chunk = stored(weights, spec);
  return (kernels) => () => {
    const rebuilder = new ChunkRebuilder(kernels, chunk, { slabRows: ROWS, sourceDtype: "F16" });
    rebuilder.source(ROWS).set(weights.F16);
    const start = performance.now();
    rebuilder.compare(ROWS);
    return performance.now() - start;
  };
}

function converting(weights, dtype, outDtype) {
  return (kernels) => {
    const converter = new Converter(kernels, shapeOf(dtype, { outDtype }));
    converter.source(ROWS).set(weights[dtype]);
    return () => {
      const start = performance.now();
      converter.convert(ROWS);
      return performance.now() - start;
    };
  };
}

/** Calls `work(exports, pointers)` once per row on one row in the cache. */
function perRow(work) {
  return (kernels) => {
    const at = kernels.arena.allocateAll({ a: 4 * COLS + 64, b: 4 * COLS + 64, sums: 40 });
    kernels.arena.bytes(at.a, 4 * COLS).fill(0);
    kernels.arena.bytes(at.b, 4 * COLS).fill(0);
    return () => {
      const start = performance.now();
      for (let row = 0; row < ROWS; row++) work(kernels.exports, at);
      return performance.now() - start;
    };
  };
}

/** The same at the widths whose codes lie across bytes. */
function ofWidths(name, makeCase, ending = "") {
  return Object.fromEntries([3, 5, 6].map((bits) => [`${name} ${bits} bits g128 s6 z6${ending}`, makeCase(bits)]));
}

function makeCases(weights) {
  const rtn = (bits, groupSize, codeBits) => specOf("rtn", bits, groupSize, codeBits);
  return {
    "rtn 4 bits g128 s6 z6": quantizing(weights, "F16", rtn(4, 128, 6)),
    "rtn 4 bits g64": quantizing(weights, "F16", rtn(4, 64, null)),
    "rtn 4 bits g32 s6 z6": quantizing(weights, "F16", rtn(4, 32, 6)),
    "rtn 2 bits g128 s6 z6": quantizing(weights, "F16", rtn(2, 128, 6)),
    "rtn 8 bits g128 s6 z6": quantizing(weights, "F16", rtn(8, 128, 6)),
    ...ofWidths("rtn", (bits) => quantizing(weights, "F16", rtn(bits, 128, 6))),
    "rtn 4 bits g128 s6 symmetric": quantizing(weights, "F16", specOf("rtn", 4, 128, 6, { symmetric: true })),
    "rtn 4 bits g128 s6 z6, from BF16": quantizing(weights, "BF16", rtn(4, 128, 6)),
    "rtn 4 bits g128 s6 z6, from F32": quantizing(weights, "F32", rtn(4, 128, 6)),
    "hqq 4 bits g128 s6 z6": quantizing(weights, "F16", specOf("hqq", 4, 128, 6)),
    "hqq 2 bits g32 s6 z6": quantizing(weights, "F16", specOf("hqq", 2, 32, 6)),
    ...ofWidths("hqq", (bits) => quantizing(weights, "F16", specOf("hqq", bits, 128, 6))),
    "mse 4 bits g128 s6 z6": quantizing(weights, "F16", specOf("mse", 4, 128, 6)),
    "mse 2 bits g32 s6 z6": quantizing(weights, "F16", specOf("mse", 2, 32, 6)),
    ...ofWidths("mse", (bits) => quantizing(weights, "F16", specOf("mse", bits, 128, 6))),
    "r2q 2 bits g32 s6": quantizing(weights, "F16", specOf("r2q", 2, 32, 6)),
    ...Object.fromEntries(Object.keys(BLOCKS).map((type) => [`quantize to ${type}`, quantizingBlocks(weights, type)])),
    "rebuild 4 bits g128 s6 z6 to F32": rebuilding(weights, rtn(4, 128, 6), "F32"),
    "rebuild 4 bits g128 s6 z6 to F16": rebuilding(weights, rtn(4, 128, 6), "F16"),
    ...ofWidths("rebuild", (bits) => rebuilding(weights, rtn(bits, 128, 6), "F32"), " to F32"),
    "rebuild r2q g32 s6 to F32": rebuilding(weights, specOf("r2q", 2, 32, 6), "F32"),
    "compare 4 bits g128 s6 z6 with F16": comparing(weights, rtn(4, 128, 6)),
    "convert F16 to F32": converting(weights, "F16", "F32"),
    "convert BF16 to F32": converting(weights, "BF16", "F32"),
    ...Object.fromEntries(
      Object.keys(BLOCKS).map((dtype) => [
        `convert ${dtype} to F32`,
        converting({ [dtype]: makeBlocks(dtype) }, dtype, "F32"),
      ]),
    ),
    "convert F32 to F16": converting(weights, "F32", "F16"),
    "convert F32 to BF16": converting(weights, "F32", "BF16"),
    "error sums": perRow((kernels, at) => kernels.addRowSums(at.a, at.b, COLS, at.sums)),
    ...Object.fromEntries(
      BIT_WIDTHS.filter((bits) => bits !== 8).flatMap((bits) => [
        [`pack ${bits} bits`, perRow((kernels, at) => kernels.packRow(at.a, at.b, COLS, bits))],
        [`unpack ${bits} bits`, perRow((kernels, at) => kernels.unpackRow(at.a, at.b, COLS, bits))],
      ]),
    ),
  };
}

/** Columns of the layer whose Hessian is taken, factored and used. */
const LAYER_COLS = 1024;

/** XᵀX of a block of rows, upper half. */
function accumulating(floats) {
  const indices = Array.from({ length: ROWS_PER_BLOCK }, (_, row) => row);
  return (kernels) => {
    kernels.arena.reset();
    const block = new RowBlock(kernels, new Staging(kernels), LAYER_COLS);
    const gram = new Gram(kernels, LAYER_COLS);
    block.start(LAYER_COLS);
    block.addRows(floats, "F32", indices);
    return () => {
      const start = performance.now();
      gram.add(block);
      return performance.now() - start;
    };
  };
}

/** A matrix that any rounding leaves positive definite. */
function makeHessian(floats) {
  const hessian = floats.slice(0, LAYER_COLS * LAYER_COLS).map((x) => x / LAYER_COLS);
  for (let c = 0; c < LAYER_COLS; c++) hessian[c * (LAYER_COLS + 1)] = 1 + (c % 7);
  return hessian;
}

function factoring(hessian) {
  return (kernels) => {
    const factor = new HessianFactor(kernels, LAYER_COLS);
    return () => {
      factor.hessian().set(hessian);
      const start = performance.now();
      if (!factor.factor({ order: true, equalizationScales: null })) throw new Error("not positive definite");
      return performance.now() - start;
    };
  };
}

/** A slab of rows with a layer's factor, and with held-back inputs where there are to be any. */
function calibrated(floats, hessian, spec, heldBackRows) {
  const kernels = loadKernels();
  const factoring = new HessianFactor(kernels, LAYER_COLS);
  factoring.hessian().set(hessian);
  factoring.factor({ order: true, equalizationScales: null });
  const factor = new Float32Array(factorLength(LAYER_COLS));
  let length = 0;
  factoring.forEachPanel((panel) => {
    factor.set(panel, length);
    length += panel.length;
  });
  const order = factoring.columnOrder();
  return (instance) => () => {
    const quantizer = new ChunkQuantizer(instance, findMethod(spec.method), spec, {
      rows: ROWS,
      cols: LAYER_COLS,
      slabRows: ROWS,
      dtype: "F32",
      sourceScale: "none",
      hessian: order,
      ...(heldBackRows === 0 ? {} : { heldBack: { rowCount: heldBackRows, activations: null } }),
    });
    quantizer.factor().set(factor);
    quantizer.readHeldBack((firstRow, into) => into.set(floats.subarray(firstRow, firstRow + into.length)));
    quantizer.source(ROWS).set(new Uint8Array(floats.buffer, 0, 4 * ROWS * LAYER_COLS));
    const start = performance.now();
    quantizer.quantize(ROWS);
    return performance.now() - start;
  };
}

function observing(floats, layout) {
  return (kernels) => {
    kernels.arena.reset();
    const stats = new ActivationStats(kernels, new Staging(kernels), { channels: LAYER_COLS, bins: 1 });
    const positions = (ROWS * COLS) / LAYER_COLS;
    return () => {
      const start = performance.now();
      stats.add(floats, { layout, positions }, 0);
      return performance.now() - start;
    };
  };
}

/** Additions and multiplications of one run of each kernel that multiplies matrices. */
function makeProducts(floats) {
  const hessian = makeHessian(floats);
  const heldBackRows = 256;
  const gptq = (bits) => calibrated(floats, hessian, specOf("gptq", bits, 32, 6), 0);
  const withOutput = calibrated(floats, hessian, specOf("rtn", 4, 32, 6), heldBackRows);
  return {
    "XᵀX, upper half": { flops: ROWS_PER_BLOCK * LAYER_COLS ** 2, prepare: accumulating(floats) },
    "factor of a Hessian": { flops: LAYER_COLS ** 3 / 3, prepare: factoring(hessian) },
    "gptq 4 bits g32 s6 z6": { flops: ROWS * LAYER_COLS ** 2, prepare: gptq(4) },
    "gptq 3 bits g32 s6 z6": { flops: ROWS * LAYER_COLS ** 2, prepare: gptq(3) },
    // W·x and Ŵ·x.
    "rtn and its output on 256 inputs": { flops: 4 * heldBackRows * ROWS * LAYER_COLS, prepare: withOutput },
  };
}

function median(values) {
  const sorted = [...values].sort((left, right) => left - right);
  return sorted[sorted.length >> 1];
}

/** Milliseconds of each build's runs, in turns. */
function timeRuns(instances, prepare, runs) {
  const milliseconds = { simd: [], scalar: [] };
  for (const kernels of instances) {
    // Code is compiled anew for speed after it has run for a while, so each kernel warms up first, for its own time.
    const run = prepare(kernels);
    const warmUntil = performance.now() + 250;
    do run();
    while (performance.now() < warmUntil);
  }
  for (let index = 0; index < runs; index++) {
    for (const kernels of instances) milliseconds[kernels.build].push(prepare(kernels)());
  }
  return milliseconds;
}

/** Prints and returns medians and bests of what one run does, `amount`, per second. */
function report(name, amount, milliseconds, unit, digits) {
  const rate = (time) => amount / (time / 1000);
  const figures = (build) => ({
    median: Math.round(rate(median(milliseconds[build]))),
    best: Math.round(rate(Math.min(...milliseconds[build]))),
  });
  const result = { name, simd: figures("simd"), scalar: figures("scalar"), aim: AIMS[name] ?? null };
  result.ratio = result.simd.median / result.scalar.median;
  const cell = ({ median: middle, best }) =>
    `${(middle / unit).toFixed(digits)} (${(best / unit).toFixed(digits)})`.padStart(16);
  const aim = result.aim === null ? "" : `   aim ${result.aim / unit}`;
  const ratio = result.ratio.toFixed(1).padStart(7);
  console.log(`${name.padEnd(36)}${cell(result.simd)}${cell(result.scalar)}${ratio}${aim}`);
  return result;
}

function printHead(unit) {
  console.log(`${"".padEnd(36)}${`SIMD ${unit}`.padStart(16)}${`scalar ${unit}`.padStart(16)}  ratio`);
}

/**
 * Runs every kernel in both builds, in turns, and prints tables: medians and bests in weights (or activations) and in
 * floating-point operations per second.
 * @param {{ runs?: number }} options timed runs of each kernel and build after the warm-up
 */
export function benchKernels({ runs = 21 } = {}) {
  const weights = makeWeights();
  const floats = new Float32Array(weights.F32.buffer);
  const instances = KERNEL_BUILDS.map((build) => loadKernels({ build }));
  console.log(`kernels, ${cpus()[0]?.model.trim()}, Node ${process.version}, median (best) of ${runs} runs`);
  printHead("M/s");
  const cases = {
    ...makeCases(weights),
    "statistics, channels last": observing(floats, "channels-last"),
    "statistics, channels first": observing(floats, "channels-first"),
  };
  const results = Object.entries(cases).map(([name, prepare]) =>
    report(name, ROWS * COLS, timeRuns(instances, prepare, runs), 1e6, 0),
  );
  printHead("GFLOP/s");
  const products = Object.entries(makeProducts(floats)).map(([name, { flops, prepare }]) =>
    report(name, flops, timeRuns(instances, prepare, runs), 1e9, 1),
  );
  const figures = { unit: "weights per second", rows: ROWS, cols: COLS, runs, kernels: results };
  const output = { ...figures, products: { unit: "floating-point operations per second", kernels: products } };
  mkdirSync(dirname(RESULTS), { recursive: true });
  writeFileSync(RESULTS, `${JSON.stringify(output, null, 2)}\n`);
  return output;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({ options: { runs: { type: "string", default: "21" } } });
  benchKernels({ runs: Number(values.runs) });
}
