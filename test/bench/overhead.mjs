/**
 * What the engine costs: a model through the public API on one thread against a plain loop that calls the very same
 * chunk functions one after the other on the main thread and writes the very same file. The outputs are compared.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { resolveConfig } from "../../dist/config/resolve.js";
import { fingerprintComponent } from "../../dist/formats/fingerprint.js";
import { openModel } from "../../dist/formats/open.js";
import { NativeWriter } from "../../dist/formats/parquet/writer.js";
import { ArrowQuant } from "../../dist/index.js";
import { planComponents } from "../../dist/plan/component.js";
import { nativeRow } from "../../dist/quantize/component.js";
import { keptGrid, quantizedBufferBytes, quantizedGrid, rowsOfChunk } from "../../dist/quantize/layer-layout.js";
import { nativeMetadata } from "../../dist/quantize/metadata.js";
import { DTYPES } from "../../dist/tensor/dtype.js";
import { keepChunk } from "../../dist/worker/keep-chunk.js";
import { quantizeChunk } from "../../dist/worker/quantize-chunk.js";
import { prepareModel } from "./model.mjs";

const RESULTS = fileURLToPath(new URL("results/overhead.json", import.meta.url));
const BYTES = 2e8;
const SETTINGS = { method: "rtn", min_accuracy: 0 };

async function runPlainLoop(input, output) {
  const config = await resolveConfig({ config: SETTINGS });
  const model = await openModel(input);
  const [plan] = planComponents({ ...model, config, calibration: null });
  const [component] = model.components;
  const fds = component.files.map(({ path }) => openSync(path, "r"));
  const out = openSync(output, "w");
  const sink = { write: async (bytes) => void writeSync(out, bytes) };
  const metadata = nativeMetadata(component, config, plan, await fingerprintComponent(component));
  const writer = await NativeWriter.open(sink, metadata);
  for (const layer of plan.layers) {
    const { tensor, spec, storedDtype } = layer;
    const grid = spec === null ? keptGrid(tensor.shape, storedDtype) : quantizedGrid(tensor.shape, spec);
    for (let chunkIndex = 0; chunkIndex < grid.chunkCount; chunkIndex++) {
      const rows = rowsOfChunk(grid, chunkIndex);
      const firstRow = chunkIndex * grid.rowsPerChunk;
      const rowBytes = (grid.cols * DTYPES[tensor.dtype].bits) / 8;
      const source = {
        fd: fds[tensor.location.file],
        path: component.files[tensor.location.file].path,
        tensorName: tensor.name,
        byteOffset: tensor.location.byteOffset + firstRow * rowBytes,
        dtype: tensor.dtype,
        rows,
        cols: grid.cols,
        firstRow,
        scales: null,
      };
      const slabRows = Math.max(1, Math.min(rows, Math.floor(2 ** 20 / rowBytes)));
      const byteLength = spec === null ? rows * rowBytes : quantizedBufferBytes(rows, grid.cols, spec);
      const task = { source, spec, storedDtype, slabRows, output: new ArrayBuffer(byteLength) };
      const reply = spec === null ? keepChunk(task) : quantizeChunk(task);
      const parts = spec === null ? { data: { byteOffset: 0, byteLength: reply.byteLength } } : reply.parts;
      const { output: buffer, crc32, sums = null } = reply;
      const chunk = { chunkIndex, chunkCount: grid.chunkCount, buffer, parts, crc32, sums };
      await writer.write(nativeRow(plan, layer, { spec }, chunk));
    }
  }
  await writer.finish();
  fsyncSync(out);
  for (const fd of [out, ...fds]) closeSync(fd);
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

async function timed(work) {
  const startedAt = performance.now();
  await work();
  return (performance.now() - startedAt) / 1000;
}

export async function benchOverhead({ runs = 5 } = {}) {
  const { folder, byteLength } = await prepareModel(BYTES);
  const loopOutput = join(dirname(folder), "loop.parquet");
  const apiOutput = join(dirname(folder), "api.parquet");
  const quantizer = new ArrowQuant({ threads: 1 });
  const api = () => quantizer.quantize({ input: folder, output: apiOutput, config: SETTINGS });
  const loop = () => runPlainLoop(folder, loopOutput);
  const seconds = { api: [], loop: [] };
  try {
    for (let run = -1; run < runs; run++) {
      const [loopSeconds, apiSeconds] = [await timed(loop), await timed(api)];
      if (run < 0) continue; // compilation and the threads' start
      seconds.loop.push(loopSeconds);
      seconds.api.push(apiSeconds);
    }
    if (Buffer.compare(readFileSync(loopOutput), readFileSync(apiOutput)) !== 0) throw new Error("outputs differ");
  } finally {
    await quantizer.dispose();
    rmSync(dirname(folder), { recursive: true, force: true });
  }
  const figures = { byteLength, runs, loopSeconds: median(seconds.loop), apiSeconds: median(seconds.api) };
  console.log(
    `overhead, ${(byteLength / 1e9).toFixed(2)} GB, rtn, one thread, median of ${runs}: plain loop ` +
      `${figures.loopSeconds.toFixed(3)} s, API ${figures.apiSeconds.toFixed(3)} s, ` +
      `ratio ${(figures.apiSeconds / figures.loopSeconds).toFixed(2)}`,
  );
  mkdirSync(dirname(RESULTS), { recursive: true });
  writeFileSync(RESULTS, JSON.stringify(figures, null, 2));
  return figures;
}
