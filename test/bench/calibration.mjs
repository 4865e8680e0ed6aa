/**
 * What statistics cost: calibration samples per second against running the same graph on the same samples in the same
 * batches and looking at nothing. Of each way the difference between a long run and a short one, so that opening the
 * model and starting threads do not count; and the whole of the long one. Hessians stop growing at a number of rows
 * (LINEAR_ROWS, CONV_ROWS), so that of them only the whole says something.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { BATCH_SAMPLES } from "../../dist/calibration/batches.js";
import { calibrateModel } from "../../dist/calibration/calibrate.js";
import { Session } from "../../dist/engine/session.js";
import { loadRuntime } from "../../dist/runtime/runtime.js";
import { seedNoise } from "../../dist/sampler/noise.js";

const RESULTS = fileURLToPath(new URL("results/calibration.json", import.meta.url));
const MODELS = fileURLToPath(new URL("../../../shared/models/", import.meta.url));
const MODEL_NAMES = ["dit-mnist", "unet-mnist"];
const FEW = 256;
const MANY = 1280;
const IMAGE = [1, 16, 16];

async function runPlainly(input, threads, samples) {
  const runtime = await loadRuntime();
  const session = await runtime.open(join(input, "onnx/model.onnx"), { threads });
  for (let first = 0; first < samples; first += BATCH_SAMPLES) {
    const sample = new Float32Array(BATCH_SAMPLES * 256);
    for (let i = 0; i < BATCH_SAMPLES; i++) seedNoise(0, first + i).fill(sample.subarray(256 * i, 256 * (i + 1)));
    const integers = (value) => new BigInt64Array(BATCH_SAMPLES).fill(value);
    await session.run({
      sample: { dtype: "F32", shape: [BATCH_SAMPLES, ...IMAGE], data: sample },
      timestep: { dtype: "I64", shape: [BATCH_SAMPLES], data: integers(BigInt(first % 1000)) },
      class_labels: { dtype: "I64", shape: [BATCH_SAMPLES], data: integers(3n) },
    });
  }
  await session.close();
}

async function calibrate(input, threads, samples, hessians, cacheFolder) {
  const session = new Session({ threads });
  const job = { input, graph: null, source: "synthetic", output: null, samples, steps: 20, seed: 0, roles: {} };
  const rest = { variant: null, components: null, hessians, cacheFolder, fresh: true };
  try {
    await calibrateModel({ ...job, ...rest }, session);
  } finally {
    await session.dispose();
  }
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

async function timed(work) {
  const startedAt = performance.now();
  await work();
  return (performance.now() - startedAt) / 1000;
}

async function benchModel(model, { runs, threads, folder }) {
  const input = join(MODELS, model);
  const ways = {
    plain: (samples) => runPlainly(input, threads, samples),
    statistics: (samples) => calibrate(input, threads, samples, false, folder),
    hessians: (samples) => calibrate(input, threads, samples, true, folder),
  };
  const result = { model, threads, runs, samples: MANY };
  for (const [way, work] of Object.entries(ways)) {
    const few = [];
    const many = [];
    for (let run = 0; run < runs; run++) {
      few.push(await timed(() => work(FEW)));
      many.push(await timed(() => work(MANY)));
    }
    const seconds = median(many);
    result[way] = { seconds, samplesPerSecond: (MANY - FEW) / (seconds - median(few)) };
  }
  return result;
}

export async function benchCalibration({ runs = 3, threads = new Session().threads } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "arrowquant-bench-"));
  const figures = [];
  try {
    for (const model of MODEL_NAMES.filter((name) => existsSync(join(MODELS, name)))) {
      const result = await benchModel(model, { runs, threads, folder });
      figures.push(result);
      const { plain, statistics, hessians } = result;
      console.log(
        `calibration of ${model}, ${threads} threads, median of ${runs}: graph alone ` +
          `${plain.samplesPerSecond.toFixed(0)} samples/s, with statistics ${statistics.samplesPerSecond.toFixed(0)} ` +
          `(${(plain.samplesPerSecond / statistics.samplesPerSecond).toFixed(2)} times as long); ${MANY} samples ` +
          `in all ${plain.seconds.toFixed(2)} s, ${statistics.seconds.toFixed(2)} s, with Hessians ` +
          `${hessians.seconds.toFixed(2)} s`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  mkdirSync(dirname(RESULTS), { recursive: true });
  writeFileSync(RESULTS, JSON.stringify(figures, null, 2));
  return figures;
}
