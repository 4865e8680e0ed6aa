/** Job files of batches. */
import assert from "node:assert/strict";
import { resolve } from "node:path";
import { readJobs } from "../../../dist/batch/jobs.js";
import { mutateText, repeatSteps } from "../mutate.mjs";
import { YAML_DICTIONARY } from "./config.mjs";
import { settle } from "./outcome.mjs";

const DICTIONARY = [
  ...YAML_DICTIONARY,
  ...["jobs", "defaults", "model_path", "output_path", "\njobs:", "\ndefaults:", "\n  - model_path: ", "output_path: "],
  ...["a", "a/b", "/", "..", "./a", "a.parquet", "'\\0'", '"\\0"', "/dev/zero", `${"x/".repeat(300)}y`, "*b"],
];

const SEEDS = [
  "jobs:\n  - model_path: a\n    output_path: out/a.parquet\n",
  "defaults:\n  bit_width: 4\njobs:\n  - model_path: m/a\n    output_path: o/a\n  - {model_path: m/b, output_path: o/b, bit_width: 8}\n",
  '{"jobs": [{"model_path": "a", "output_path": "b", "group_size": 32, "exclude": ["x"]}], "defaults": {"method": "rtn"}}',
  "defaults: &b {scale_bits: 6, modality: audio}\njobs:\n- <<: *b\n  model_path: x.safetensors\n  output_path: y.parquet\n",
];

async function check(path) {
  return settle(["E_JOB_FILE", "E_CONFIG"], async () => {
    const jobs = await readJobs(path, {});
    assert.ok(jobs.length > 0, "a batch of nothing");
    const outputs = jobs.map(({ outputPath }) => resolve(outputPath));
    assert.equal(new Set(outputs).size, outputs.length, "two jobs write one output");
    for (const { modelPath, outputPath, config } of jobs) {
      assert.ok(typeof modelPath === "string" && modelPath !== "");
      assert.notEqual(resolve(modelPath), resolve(outputPath));
      assert.ok(config.values.bit_width > 0);
    }
  });
}

export default {
  module: import.meta.url,
  name: "jobs",
  fileName: "jobs.yaml",
  writeSeeds: async () => SEEDS.map((text) => Buffer.from(text)),
  mutate: (random, seeds) => repeatSteps(random, random.pick(seeds), (text) => mutateText(random, text, DICTIONARY)),
  check,
};
