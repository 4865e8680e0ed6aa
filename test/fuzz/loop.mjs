/**
 * The process that a supervisor starts: cases `from` to `to` of a format, one after the other. Before each it writes
 * the case's number to a file, for the supervisor to see one that does not end; what it finds it prints as JSON lines.
 */
import { openSync, readdirSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { startMeasuring } from "./memory.mjs";
import { makeCase } from "./random.mjs";

const MIB = 1024 ** 2;
/** Of processor time, which other processes cannot stretch; waiting without end is the supervisor's to see. */
const MAX_SECONDS = 1;
const MAX_GROWTH_BYTES = 64 * MIB;
/** Large inputs may take more: bytes of memory per byte. */
const GROWTH_PER_BYTE = 16;
/** A new wasm instance of the Parquet library takes this much address space, and no memory. */
const WASM_RESERVATION_BYTES = 4 * 1024 * MIB;
const CASES_PER_REPORT = 500;
const WARM_UP_ROUNDS = 20;

const [module, seed, from, to, folder] = process.argv.slice(2);
const { default: format } = await import(module);
const seeds = readdirSync(join(folder, "seeds"))
  .sort()
  .map((name) => readFileSync(join(folder, "seeds", name)));
const path = join(folder, format.fileName);
const progress = openSync(join(folder, "progress"), "w");

const print = (line) => writeSync(1, `${JSON.stringify(line)}\n`);

// What the first cases load and the threads they start are not their doing.
for (let round = 0; round < WARM_UP_ROUNDS; round++) {
  for (const bytes of seeds) {
    writeFileSync(path, bytes);
    await format.check(path, bytes);
  }
}

let outcomes = {};
for (let index = Number(from); index < Number(to); index++) {
  const bytes = makeCase(format, seed, index, seeds);
  writeFileSync(path, bytes);
  writeSync(progress, String(index).padStart(12), 0);
  const stopMeasuring = startMeasuring();
  const cpuStart = process.cpuUsage();
  let outcome;
  try {
    outcome = await format.check(path, bytes);
  } catch (thrown) {
    outcome = "failure";
    print({ index, problem: thrown?.stack ?? String(thrown) });
  }
  const { user, system } = process.cpuUsage(cpuStart);
  const seconds = (user + system) / 1e6;
  const { residentGrowth, virtualGrowth } = stopMeasuring();
  const limit = Math.max(MAX_GROWTH_BYTES, GROWTH_PER_BYTE * bytes.length);
  const growth = Math.max(residentGrowth, virtualGrowth < WASM_RESERVATION_BYTES ? virtualGrowth : 0);
  // A collection may have come due just then: to be seen again in a fresh process.
  if (seconds > MAX_SECONDS) print({ index, suspect: `took ${seconds.toFixed(2)} s` });
  if (growth > limit) {
    print({ index, suspect: `took ${Math.round(growth / MIB)} MiB for an input of ${bytes.length} bytes` });
  }
  outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  if ((index + 1) % CASES_PER_REPORT === 0 || index + 1 === Number(to)) {
    print({ outcomes, next: index + 1 });
    outcomes = {};
  }
}
