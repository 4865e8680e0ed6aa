/** Indices of sharded sets, beside shards that stay as they are. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openModel } from "../../../dist/formats/open.js";
import { BOUNDARIES, mutateJson, mutateText, repeatSteps } from "../mutate.mjs";
import { INPUT_CODES, settle } from "./outcome.mjs";
import { buildSafetensors } from "./safetensors.mjs";

const SHARDS = {
  "s-1.safetensors": ["a.weight", "a.bias"],
  "s-2.safetensors": ["b.weight", 'é/\\"'],
  "sub/s-3.safetensors": ["c"],
};
const WEIGHT_MAP = Object.fromEntries(
  Object.entries(SHARDS).flatMap(([shard, names]) => names.map((name) => [name, shard])),
);
const ofShards = (...shards) =>
  Object.fromEntries(Object.entries(WEIGHT_MAP).filter(([, shard]) => shards.includes(shard)));

const DICTIONARY = [
  ...BOUNDARIES,
  ...["{", "}", "[", "]", ",", ":", '"', "\\", "null", "true", "{}", "[]", '""', '"\\u0000"', "\n", "\ufeff"],
  ...Object.keys(SHARDS).map((shard) => JSON.stringify(shard)),
  ...Object.values(SHARDS).flatMap((names) => names.map((name) => JSON.stringify(name))),
  ...['"weight_map"', '"metadata"', '"total_size"', '"__proto__"', '"constructor"', '"s\\u002d1.safetensors"'],
  ...['"../case"', '"/etc/passwd"', '"sub"', '"."', '".."', '"./s-1.safetensors"', '"sub/../s-1.safetensors"'],
  ...[
    '"C:\\\\s-1.safetensors"',
    '"sub\\\\s-3.safetensors"',
    '"/dev/zero"',
    '"s-1.safetensors/"',
    '"case.safetensors.index.json"',
  ],
];

async function writeSeeds(folder) {
  const { mkdirSync } = await import("node:fs");
  mkdirSync(join(folder, "sub"), { recursive: true });
  for (const [shard, names] of Object.entries(SHARDS)) {
    writeFileSync(join(folder, shard), buildSafetensors(names.map((name) => ({ name, dtype: "F16", shape: [2, 2] }))));
  }
  return [
    { metadata: { total_size: 40 }, weight_map: WEIGHT_MAP },
    { weight_map: ofShards("s-1.safetensors") },
    {
      metadata: { total_size: "24", other: [1, { a: null }] },
      weight_map: ofShards("s-1.safetensors", "sub/s-3.safetensors"),
    },
  ].map((index) => Buffer.from(JSON.stringify(index, null, 1)));
}

function mutate(random, seeds) {
  const step = random.chance(0.5) ? mutateJson : mutateText;
  return repeatSteps(random, random.pick(seeds), (text) => step(random, text, DICTIONARY));
}

async function check(path, bytes) {
  return settle(INPUT_CODES, async () => {
    const { components } = await openModel(path);
    const { weight_map: map } = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
    const [{ tensors, files }] = components;
    const found = Object.fromEntries(tensors.map(({ name, location }) => [name, files[location.file].name]));
    assert.deepEqual(found, { ...map });
    for (const [name, shard] of Object.entries(map)) {
      // `./x` and `sub/../x` are other ways to say x.
      assert.ok(SHARDS[join(shard)].includes(name), `"${name}" is not in ${shard}`);
    }
  });
}

export default {
  module: import.meta.url,
  name: "index",
  fileName: "case.safetensors.index.json",
  writeSeeds,
  mutate,
  check,
};
