/**
 * What measuring layers costs: every candidate of every layer by weight, output and model, against quantizing the model
 * once for each width, which does the same work on the weights and writes files. Statistics are taken beforehand; of
 * `model` the runs alone are counted, what it opens and samples beforehand is told apart.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { calibrateModel } from "../../dist/calibration/calibrate.js";
import { Session } from "../../dist/engine/session.js";
import { quantizeModel } from "../../dist/quantize/quantize.js";
import { measureModel } from "../../dist/quantize/sensitivity/sensitivity.js";

const RESULTS = fileURLToPath(new URL("results/sensitivity.json", import.meta.url));
const MODELS = fileURLToPath(new URL("../../../shared/models/", import.meta.url));
const MODEL_NAMES = ["dit-mnist", "unet-mnist"];
const WIDTHS = [2, 3, 4, 5, 6, 8];

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

async function timed(work) {
  const startedAt = performance.now();
  const result = await work();
  return { result, seconds: (performance.now() - startedAt) / 1000 };
}

/** Statistics in the cache that every way takes them from. */
function calibrate(input, session, cacheFolder) {
  const source = join(input, "calibration.parquet");
  const job = { input, graph: null, source, output: null, samples: 128, steps: 20, seed: 0, roles: {} };
  return calibrateModel({ ...job, variant: null, components: null, hessians: true, cacheFolder }, session);
}

async function benchModel(name, { runs, threads, folder }) {
  const input = join(MODELS, name);
  const session = new Session({ threads });
  const calibration = join(input, "calibration.parquet");
  const plain = { group_size: 32, enable_spatial: false, min_accuracy: 0 };
  const measure = (kinds, config, fresh = true) =>
    measureModel({ input, config: { ...plain, ...config, candidate_bits: WIDTHS }, kinds, fresh }, session);
  const quantizeAll = async (config) => {
    for (const bits of WIDTHS) {
      const output = join(folder, `${name}-${bits}.parquet`);
      await quantizeModel({ input, output, force: true, config: { ...plain, ...config, bit_width: bits } }, session);
    }
  };
  try {
    await calibrate(input, session, join(folder, "arrowquant"));
    const ways = {
      weight: () => measure(["weight"], {}),
      quantizeHqq: () => quantizeAll({}),
      output: () => measure(["output"], { calibration }),
      quantizeGptq: () => quantizeAll({ calibration }),
    };
    const figures = { model: name, threads, runs, widths: WIDTHS };
    for (const [way, work] of Object.entries(ways)) {
      const all = [];
      for (let run = 0; run < runs; run++) {
        const { result, seconds } = await timed(work);
        all.push(seconds);
        if (result !== undefined) figures.candidates = countCandidates(result);
      }
      figures[way] = { seconds: median(all) };
    }
    const { seconds: whole } = await timed(() => measure(["model"], { calibration }));
    const { seconds: opened } = await timed(() => measure(["model"], { calibration }, false));
    figures.modelRuns = { seconds: whole - opened - figures.output.seconds, openingSeconds: opened };
    return figures;
  } finally {
    await session.dispose();
  }
}

function countCandidates({ tables }) {
  return tables.flatMap(({ layers }) => layers).reduce((sum, { candidates }) => sum + candidates.length, 0);
}

export async function benchSensitivity({ runs = 3, threads = new Session().threads } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "arrowquant-bench-"));
  const cacheHome = process.env.XDG_CACHE_HOME;
  process.env.XDG_CACHE_HOME = folder;
  const all = [];
  try {
    for (const model of MODEL_NAMES.filter((name) => existsSync(join(MODELS, name)))) {
      const figures = await benchModel(model, { runs, threads, folder });
      all.push(figures);
      const { candidates, weight, quantizeHqq, output, quantizeGptq, modelRuns } = figures;
      const times = (one, other) => `${one.toFixed(2)} s (quantizing: ${other.toFixed(2)} s)`;
      console.log(
        `sensitivity of ${model}, ${candidates} candidates, ${threads} threads, median of ${runs}: weight, hqq ` +
          `${times(weight.seconds, quantizeHqq.seconds)}, output, gptq ${times(output.seconds, quantizeGptq.seconds)}, ` +
          `model ${(candidates / modelRuns.seconds).toFixed(1)} candidates/s after ${modelRuns.openingSeconds.toFixed(2)} s`,
      );
    }
  } finally {
    if (cacheHome === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = cacheHome;
    rmSync(folder, { recursive: true, force: true });
  }
  mkdirSync(dirname(RESULTS), { recursive: true });
  writeFileSync(RESULTS, `${JSON.stringify(all, null, 2)}\n`);
  return all;
}
