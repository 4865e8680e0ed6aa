/**
 * What choosing bits layer by layer is worth: the same model at the same size, uniform and mixed by each measure of a
 * layer's sensitivity, and searched. Candidates are the widths of every layer and a few group sizes, so that there is
 * room below a uniform 2 bits too.
 */
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createMeasure, printHead, writeReferenceInputs } from "./quality-row.mjs";

const MODELS = ["dit-mnist", "unet-mnist"].map((name) =>
  fileURLToPath(new URL(`../../../shared/models/${name}`, import.meta.url)),
);

const UNIFORM_BITS = [2, 3, 4, 6];
const GROUP_SIZE = 32;
const CANDIDATE_GROUP_SIZES = [16, 32, 64, 128];
const SENSITIVITIES = ["entropy", "weight", "output", "model"];

/** Weights only, by what the model itself samples: all that gptq and the measures of error need. */
const COMMON = {
  calibration: "sampling",
  activation_bits: 16,
  enable_time_aware: false,
  enable_spatial: false,
};

/**
 * Prints a table for each model and method. Seconds are those of the quantization, with what it measured that no row
 * before had: figures of candidates and searches stay in the cache.
 * @param request models (null: the shared ones), methods, budgets in bits per weight, most evaluations of a search
 * @param save given all rows so far, after each table
 */
export async function mixedTable(aq, folder, { models, evalPath, samples, methods, budgets, evaluations }, save) {
  const rows = [];
  for (const model of models ?? MODELS) {
    const inputs = evalPath ?? join(folder, `${basename(model)}.jsonl`);
    if (evalPath === null) writeReferenceInputs(model, inputs);
    const measure = createMeasure(aq, folder, { model, evalPath: inputs, samples });
    for (const method of methods) {
      printHead(`Mixed precision on ${basename(model)}, ${method}`, [
        "target",
        "bits and group sizes",
        "bits/weight",
        "prediction error",
        "of uniform at this size",
        "PSNR dB",
        "s",
      ]);
      const uniform = [];
      const add = async (target, way, config) => {
        const figures = await measure({ ...COMMON, method, ...config });
        const { bitsPerWeight, predictionError, psnrDb, seconds } = figures;
        if (target === null) uniform.push(figures);
        const ofUniform = target === null ? 1 : predictionError / interpolate(uniform, bitsPerWeight);
        rows.push({ model: basename(model), method, target, way, ...figures, ofUniform });
        const cells = [
          target === null ? "" : target.toFixed(1),
          way,
          bitsPerWeight.toFixed(3),
          predictionError.toFixed(4),
          target === null ? "" : ofUniform.toFixed(2),
          psnrDb.toFixed(1),
          seconds.toFixed(0),
        ];
        console.log(`| ${cells.join(" | ")} |`);
      };
      for (const bits of UNIFORM_BITS) {
        await add(null, `uniform ${bits} bits, group ${GROUP_SIZE}`, { bit_width: bits, group_size: GROUP_SIZE });
      }
      for (const target of budgets) {
        const mixed = { target_bpw: target, candidate_group_sizes: CANDIDATE_GROUP_SIZES };
        for (const sensitivity of SENSITIVITIES) await add(target, `by ${sensitivity}`, { ...mixed, sensitivity });
        const evolution = { search: "evolutionary", "evolution.evaluations": evaluations };
        await add(target, "by model, then search", { ...mixed, sensitivity: "model", ...evolution });
      }
      save(rows);
    }
  }
}

/** The error that a uniform width would have at this size: errors fall by about the same factor with every bit. */
function interpolate(uniform, bitsPerWeight) {
  const above = Math.max(
    1,
    Math.min(
      uniform.length - 1,
      uniform.findIndex((figures) => figures.bitsPerWeight >= bitsPerWeight),
    ),
  );
  const [low, high] = [uniform[above - 1], uniform[above]];
  const part = (bitsPerWeight - low.bitsPerWeight) / (high.bitsPerWeight - low.bitsPerWeight);
  return low.predictionError ** (1 - part) * high.predictionError ** part;
}
