/** Statistics of models of known inputs, against sums in float64, for every way that a graph may take its batch. */
import { open, readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { calibrateModel } from "../../dist/calibration/calibrate.js";
import { type LayerStatistics, openStatistics, type Statistics } from "../../dist/calibration/statistics.js";
import { Session } from "../../dist/engine/session.js";
import { useFolder } from "../quantize/source.js";
import {
  CHANNELS,
  GEOMETRY,
  HEIGHT,
  makeRows,
  type Row,
  type SmallModelOptions,
  smallJob,
  WIDTH,
  writeSmallModel,
} from "./small-model.js";

const folder = useFolder();
let session: Session;
beforeAll(() => {
  session = new Session({ threads: 2 });
});
afterAll(() => session.dispose());

/** 27 samples at nine times, out of order. */
const rows = makeRows(27, (index) => 10 * ((index * 7) % 9));
const byTime = rows.map((_, index) => index).sort((a, b) => at(a).timestep - at(b).timestep || a - b);
const heldBack = byTime.filter((_, rank) => rank % 8 === 4);
const used = byTime.filter((index) => !heldBack.includes(index));
const times = [...new Set(used.map((index) => at(index).timestep))];

function at(index: number): Row {
  return rows[index] as Row;
}

async function calibrate(name: string, options: SmallModelOptions): Promise<Statistics> {
  writeSmallModel(folder.path(name), rows, options);
  const { path } = await calibrateModel(smallJob(folder.path(name), folder.path("cache")), session);
  return openStatistics(path);
}

/** Rows of X that a layer multiplies for one sample, by the definition of the layer. */
const LAYER_ROWS: Readonly<Record<string, (row: Row) => number[][]>> = {
  "conv.weight": ({ sample }) => convolutionRows(sample),
  "shortcut.weight": ({ sample }) => tokensOf(sample),
  "linear.weight": ({ sample }) => [...tokensOf(sample), ...tokensOf(sample).map((token) => token.map((x) => 2 * x))],
  "left.weight": ({ sample }) => tokensOf(sample),
  "time.weight": ({ timestep }) => [[timestep]],
};

function pixel(sample: Float32Array, c: number, y: number, x: number): number {
  if (y < 0 || y >= HEIGHT || x < 0 || x >= WIDTH) return 0;
  return sample[(c * HEIGHT + y) * WIDTH + x] as number;
}

function tokensOf(sample: Float32Array): number[][] {
  return Array.from({ length: HEIGHT * WIDTH }, (_, p) =>
    Array.from({ length: CHANNELS }, (_unused, c) => sample[c * HEIGHT * WIDTH + p] as number),
  );
}

function convolutionRows(sample: Float32Array): number[][] {
  const [[kh, kw], [sh, sw], [top, left, bottom, right]] = [GEOMETRY.kernel, GEOMETRY.strides, GEOMETRY.pads];
  const result: number[][] = [];
  for (let y = -top; y + kh <= HEIGHT + bottom; y += sh) {
    for (let x = -left; x + kw <= WIDTH + right; x += sw) {
      const row: number[] = [];
      for (let c = 0; c < CHANNELS; c++) {
        for (let i = 0; i < kh; i++) for (let j = 0; j < kw; j++) row.push(pixel(sample, c, y + i, x + j));
      }
      result.push(row);
    }
  }
  return result;
}

/** Channels of what flows in: the columns, but of a convolution its pixels. */
function channelRows(name: string, row: Row): number[][] {
  const isConvolution = name === "conv.weight" || name === "grouped.weight";
  return isConvolution ? tokensOf(row.sample) : rowsOf(name, row);
}

function rowsOf(name: string, row: Row): number[][] {
  return (LAYER_ROWS[name] as (row: Row) => number[][])(row);
}

async function floatsAt(place: { path: string; byteOffset: number }, count: number): Promise<Float32Array> {
  const file = await open(place.path);
  try {
    const floats = new Float32Array(count);
    await file.read(new Uint8Array(floats.buffer), 0, 4 * count, place.byteOffset);
    return floats;
  } finally {
    await file.close();
  }
}

/** One per sample, or one for all samples of a time where the graph takes a single time. */
async function checkLayer(name: string, layer: LayerStatistics, samplesOf: (time: number) => number[]): Promise<void> {
  const { channels } = layer;
  for (const [bin, time] of times.entries()) {
    const vectors = samplesOf(time).flatMap((index) => channelRows(name, at(index)));
    expect(layer.count[bin]).toBe(vectors.length);
    const channelOf = (c: number) => vectors.map((vector) => vector[c] as number);
    for (let c = 0; c < channels; c++) {
      const values = channelOf(c);
      const place = bin * channels + c;
      expect(layer.min[place]).toBe(Math.min(...values));
      expect(layer.max[place]).toBe(Math.max(...values));
      expect(layer.absmax[place]).toBe(Math.max(...values.map(Math.abs)));
      expect(layer.mean[place]).toBeCloseTo(values.reduce((sum, x) => sum + x, 0) / values.length, 5);
      expect(layer.meansq[place]! / (values.reduce((sum, x) => sum + x * x, 0) / values.length || 1)).toBeCloseTo(
        values.some((x) => x !== 0) ? 1 : 0,
        5,
      );
    }
    const histogram = layer.histogram.subarray(2048 * bin, 2048 * (bin + 1));
    const width = 2 ** (layer.histogramExponent[bin] as number) / 1024;
    const expected = new Uint32Array(2048);
    for (const x of vectors.flat()) expected[1024 + Math.floor(x / width)]!++;
    expect([...histogram]).toEqual([...expected]);
  }
}

async function checkHessian(name: string, layer: LayerStatistics, samples: readonly number[]): Promise<void> {
  const vectors = samples.flatMap((index) => rowsOf(name, at(index)));
  const hessian = await floatsAt(layer.hessian as { path: string; byteOffset: number }, layer.cols ** 2);
  const scale = vectors.reduce((sum, row) => sum + row.reduce((s, x) => s + x * x, 0), 0) / vectors.length;
  for (let i = 0; i < layer.cols; i++) {
    for (let j = 0; j < layer.cols; j++) {
      const exact = vectors.reduce((sum, row) => sum + (row[i] as number) * (row[j] as number), 0) / vectors.length;
      expect(Math.abs((hessian[i * layer.cols + j] as number) - exact)).toBeLessThan(1e-6 * scale);
    }
  }
}

const sorted = (vectors: readonly (readonly number[])[]) => vectors.map(String).sort();

async function checkHeldBack(name: string, layer: LayerStatistics): Promise<void> {
  const place = layer.heldBack as NonNullable<LayerStatistics["heldBack"]>;
  const floats = await floatsAt(place, place.rowCount * layer.cols);
  const found = Array.from({ length: place.rowCount }, (_, r) => [
    layer.heldBackTime?.[r] as number,
    ...floats.subarray(r * layer.cols, (r + 1) * layer.cols),
  ]);
  const whole = heldBack.flatMap((index) => rowsOf(name, at(index)).map((row) => [at(index).timestep, ...row]));
  // Fewer than the limit of 256 rows: all of them.
  expect(sorted(found)).toEqual(sorted(whole));
}

const LAYERS = Object.keys(LAYER_ROWS);

describe.each([
  ["an open batch", {}],
  ["a batch of one", { batch: 1 }],
  ["a batch of four", { batch: 4 }],
  ["float16", { float: "FLOAT16" }],
] as [string, SmallModelOptions][])("a graph with %s", (name, options) => {
  let statistics: Statistics;
  beforeAll(async () => {
    statistics = await calibrate(name, options);
  });

  it("has a bin per time, and holds every 8th sample back", () => {
    const { info } = statistics;
    expect(info.time.bins.map(({ value }) => value)).toEqual(times);
    expect(info.time.bins.map(({ count }) => count)).toEqual(
      times.map((time) => used.filter((index) => at(index).timestep === time).length),
    );
    expect([info.sampleCount, info.heldBackCount]).toEqual([27, heldBack.length]);
  });

  it.each(LAYERS)("takes %s", async (layerName) => {
    const layer = (await statistics.read(layerName)) as LayerStatistics;
    await checkLayer(layerName, layer, (time) => used.filter((index) => at(index).timestep === time));
    await checkHessian(layerName, layer, used);
    await checkHeldBack(layerName, layer);
  });

  it("takes a grouped convolution's statistics, and says why it has no Hessian", async () => {
    const layer = (await statistics.read("grouped.weight")) as LayerStatistics;
    await checkLayer("grouped.weight", layer, (time) => used.filter((index) => at(index).timestep === time));
    expect([layer.hessian, layer.heldBack]).toEqual([null, null]);
    expect(statistics.info.values[layer.value]?.hessian).toEqual({ reason: "it is a convolution of 4 groups" });
  });
});

it("takes one time for a whole batch", async () => {
  const statistics = await calibrate("scalar", { scalarTime: true });
  const conv = (await statistics.read("conv.weight")) as LayerStatistics;
  await checkLayer("conv.weight", conv, (time) => used.filter((index) => at(index).timestep === time));
  await checkHessian("conv.weight", conv, used);
  // What depends on the time alone passes once.
  const time = (await statistics.read("time.weight")) as LayerStatistics;
  await checkLayer("time.weight", time, (value) => used.filter((index) => at(index).timestep === value).slice(0, 1));
});

it("gives the same file again, and the same from any number of threads", async () => {
  writeSmallModel(folder.path("again"), rows);
  const files = [];
  for (const threads of [1, 2, 3]) {
    await using other = new Session({ threads });
    const job = smallJob(folder.path("again"), folder.path(`cache-${threads}`), { fresh: true });
    files.push(await readFile((await calibrateModel(job, other)).path));
  }
  expect(files[1]?.equals(files[0] as Buffer)).toBe(true);
  expect(files[2]?.equals(files[0] as Buffer)).toBe(true);
});
