/** What a row of a table of quality is: a model quantized, and run side by side with the original. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Predictions of a data set: all of its rows up to this. */
const EVAL_SAMPLES = 4096;

/**
 * @param eval_ inputs to predict for; null: those that the original's own sampling visits
 * @param samples of the PSNR, and of the predictions without `evalPath`
 * @returns a function of a configuration that quantizes, runs, and gives the row's figures
 */
export function createMeasure(aq, folder, { model, evalPath, samples }) {
  return async (config, dynamicBits = null) => {
    const output = join(folder, "quantized.parquet");
    const result = await aq.quantize({ input: model, output, force: true, config: { min_accuracy: 0, ...config } });
    const graph = config.graph ?? null;
    const run = async (inputs) =>
      aq.validate({ original: model, quantized: output, minAccuracy: 0, run: { dynamicBits, graph, ...inputs } });
    const sampled = await run({ samples });
    const predicted = evalPath === null ? sampled : await run({ data: evalPath, samples: EVAL_SAMPLES });
    const last = (validated) => validated.run.variants.at(-1);
    return {
      bitsPerWeight: result.summary.bitsPerWeight,
      sqnrDb: result.summary.metrics.sqnrDb,
      predictionError: last(predicted).predictionError,
      psnrDb: last(sampled).psnrDb,
      seconds: result.summary.seconds,
    };
  };
}

export const FIGURES = ["bits/weight", "weight SQNR dB", "prediction error", "PSNR dB", "s"];

export function printHead(title, columns) {
  console.log(`\n${title}\n\n| ${columns.join(" | ")} |\n|${columns.map(() => "---").join("|")}|`);
}

export function printRow(cells, { bitsPerWeight, sqnrDb, predictionError, psnrDb, seconds }) {
  const figures = [
    bitsPerWeight.toFixed(2),
    sqnrDb.toFixed(1),
    predictionError.toFixed(4),
    psnrDb.toFixed(1),
    seconds.toFixed(0),
  ];
  console.log(`| ${[...cells, ...figures].join(" | ")} |`);
}

/** Writes the inputs of a model's reference predictions (shared/models/README.md) as JSON lines: 10 times × 32 samples. */
export function writeReferenceInputs(model, path) {
  const file = readFileSync(join(model, "eval_reference.safetensors"));
  const headerLength = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + headerLength));
  const read = (name, ArrayType) => {
    const [begin, end] = header[name].data_offsets;
    return new ArrayType(Uint8Array.from(file.subarray(8 + headerLength + begin, 8 + headerLength + end)).buffer);
  };
  const times = read("step_t", BigInt64Array);
  const labels = read("step_class_labels", BigInt64Array);
  const samples = read("step_x_t", Float32Array);
  const side = header.step_x_t.shape.at(-1);
  const length = side * side;
  const lines = [];
  for (const [step, time] of times.entries()) {
    for (const [index, label] of labels.entries()) {
      const at = (step * labels.length + index) * length;
      const rows = Array.from({ length: side }, (_, row) => [
        ...samples.subarray(at + row * side, at + (row + 1) * side),
      ]);
      lines.push(JSON.stringify({ sample: [rows], timestep: Number(time), class_label: Number(label) }));
    }
  }
  writeFileSync(path, `${lines.join("\n")}\n`);
}
