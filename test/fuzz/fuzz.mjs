/**
 * `npm run fuzz`: mutated files of every format this program reads, each of which must come to a right result or to
 * an error with a code that its format may give, within a second and without memory out of proportion.
 *
 *   --count N      cases per format (100000)      --only FORMAT  one format
 *   --seed S       another run (1)                --case I       one case again
 *   --failures D   where inputs that failed go (test/fuzz/failures)
 */
import { parseArgs } from "node:util";
import { FORMATS } from "./formats.mjs";
import { fuzzFormat } from "./supervise.mjs";

const { values } = parseArgs({
  options: {
    count: { type: "string", default: "100000" },
    seed: { type: "string", default: "1" },
    only: { type: "string" },
    case: { type: "string" },
    failures: { type: "string", default: "test/fuzz/failures" },
  },
});
const names = FORMATS.map(({ name }) => name);
if (values.only !== undefined && !names.includes(values.only)) {
  throw new Error(`--only takes ${names.join(", ")}, got ${values.only}`);
}
for (const key of ["count", "case"]) {
  if (values[key] !== undefined && !/^\d{1,9}$/.test(values[key])) throw new Error(`--${key} takes a count`);
}
const from = Number(values.case ?? 0);
const to = values.case === undefined ? Number(values.count) : from + 1;

for (const format of FORMATS) {
  if (values.only !== undefined && values.only !== format.name) continue;
  const { outcomes, failures, seconds } = await fuzzFormat(format, {
    seed: values.seed,
    from,
    to,
    failureFolder: values.failures,
  });
  const counts = Object.entries(outcomes).sort(([, a], [, b]) => b - a);
  console.log(`${format.name}: ${to - from} cases in ${seconds.toFixed(1)} s, ${failures.length} failures`);
  console.log(`  ${counts.map(([code, count]) => `${code} ${count}`).join(", ")}`);
  for (const { index, problem, file } of failures) {
    process.exitCode = 1;
    console.log(`  FAILED --only ${format.name} --seed ${values.seed} --case ${index} (${file})`);
    console.log(problem.replace(/^/gm, "    "));
  }
}
