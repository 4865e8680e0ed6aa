/** Configuration files, YAML and JSON, down to the patterns that the plan compiles. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { loadConfigFile } from "../../../dist/config/file.js";
import { writeConfigTemplate } from "../../../dist/config/init.js";
import { resolveConfig } from "../../../dist/config/resolve.js";
import { CONFIG_KEYS, configSchema } from "../../../dist/config/schema.js";
import { compileLayerRules } from "../../../dist/plan/layers.js";
import { BOUNDARIES, mutateText, repeatSteps } from "../mutate.mjs";
import { settle } from "./outcome.mjs";

const PROFILES = new URL("../../../profiles/", import.meta.url);

/** What YAML and settings are made of. */
export const YAML_DICTIONARY = [
  ...BOUNDARIES,
  ...CONFIG_KEYS,
  ...CONFIG_KEYS.map((key) => `\n${key}: `),
  ...[
    "\n",
    "\n  ",
    "\n- ",
    ": ",
    "- ",
    "? ",
    ", ",
    "{",
    "}",
    "[",
    "]",
    "#",
    "&a ",
    "*a",
    "<<: *a",
    "!!binary ",
    "!!set ",
  ],
  ...["!!float ", "!x ", "---\n", "...\n", "%YAML 1.1\n", "| \n  a", ">-\n  b", '"', "'", "\t", "\r\n", "\ufeff", "\\"],
  ...["null", "~", "true", "no", "none", "auto", "image", "512MiB", "1e3GB", "0 B", "2026-11-21", "rtn", "hqq", "r2q"],
  ...[
    "'(a+)+$'",
    "'[['",
    "'(?=x)'",
    "'\\\\1'",
    "'a{1000}{1000}'",
    "__proto__: 1",
    "constructor: {}",
    "{a: 1}",
    "[1, 2]",
  ],
];

const WRITTEN = [
  "profile: edge\nbit_width: 2\nexclude: ['attn1\\.', \"^norm\"]\nlayer_bit_widths:\n  to_[qkv]: 8\n  '\\.ff\\.': none\n",
  "base: &a [1, 2]\ncomponents: [transformer, text_encoder]\nmemory: 1.5 GiB\nvariant: fp16\nmodality: image\n",
  '{"bit_width": 4, "group_size": 64, "method": "hqq", "min_accuracy": 0.9, "include": ["to_q"], "symmetric": false}',
  "bit_width: 8\n# comment\nscale_bits: none\nzero_point_bits: none\nsensitive_layer_names:\n  - a.b.c\n  - >-\n    d\n    e\n",
];

async function check(path, bytes) {
  return settle(["E_CONFIG", "E_CONFLICT", "E_PATTERN"], async () => {
    const file = await loadConfigFile(path);
    const { values, origins } = await resolveConfig({ file });
    assert.deepEqual(Object.keys(values).toSorted(), CONFIG_KEYS.toSorted());
    assert.deepEqual(configSchema.parse(values), values, "values that are not settled");
    const text = bytes.toString();
    for (const [key, { source }] of Object.entries(origins)) {
      // A key may be written with escapes only in double quotes.
      if (source === "file")
        assert.ok(text.includes(key) || text.includes("\\"), `"${key}" does not stand in the file`);
    }
    const rules = compileLayerRules({ values, origins });
    for (const { pattern } of rules.exclude) pattern.test("transformer_blocks.0.attn1.to_q.weight");
  });
}

export default {
  module: import.meta.url,
  name: "config",
  fileName: "case.yaml",
  writeSeeds: async () => [
    ...WRITTEN.map((text) => Buffer.from(text)),
    ...readdirSync(PROFILES).map((name) => readFileSync(new URL(name, PROFILES))),
    Buffer.from((await writeConfigTemplate()).replace(/^#(?! )/gm, "")),
  ],
  mutate: (random, seeds) =>
    repeatSteps(random, random.pick(seeds), (text) => mutateText(random, text, YAML_DICTIONARY)),
  check,
};
