/**
 * Kills runs at random moments and looks at what they leave: the target must be the old output or the complete new
 * one at any time, and a rerun must succeed and sweep up. `node test/faults/kill.mjs 200` on the built program.
 */
import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const BINARY = fileURLToPath(new URL("../../bin/arrowquant.js", import.meta.url));
const MODELS = new URL("../models/", import.meta.url);
const SEED = 0x5eed;
/** After so many kills the run is done to its end, to see that it recovers. */
const RERUN_EVERY = 5;
const BIT_WIDTHS = [4, 8];

/** Numbers in 0 … 1: a linear congruential generator, constants of Numerical Recipes. */
function seedRandom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function start(input, output, bits, more) {
  const line = ["quantize", input, "-o", output, "-b", String(bits), "--method", "rtn", "--threads", "2", "--json"];
  const child = spawn(process.execPath, [BINARY, ...line, ...more], { stdio: "ignore" });
  const ended = new Promise((resolve) => child.on("close", (code, signal) => resolve({ code, signal })));
  return { child, ended };
}

async function finish(input, output, bits, more) {
  const { code } = await start(input, output, bits, more).ended;
  if (code !== 0) throw new Error(`a run to the end exits with ${code}`);
}

/** Everything in a file or folder, as one comparable text. */
function contentOf(path) {
  if (!existsSync(path)) return null;
  if (statSync(path).isFile()) return readFileSync(path, "latin1");
  return readdirSync(path)
    .sort()
    .map((name) => `${name}\0${readFileSync(join(path, name), "latin1")}`)
    .join("\0");
}

/** A model of two components, whose output is a folder. */
function makePipeline(folder) {
  const pipeline = join(folder, "pipeline");
  mkdirSync(pipeline);
  const index = { _class_name: "Pipeline", unet: ["diffusers", "UNet2DModel"], unet_2: ["diffusers", "UNet2DModel"] };
  writeFileSync(join(pipeline, "model_index.json"), JSON.stringify(index));
  for (const name of ["unet", "unet_2"]) {
    cpSync(new URL("unet-mnist/unet", MODELS), join(pipeline, name), { recursive: true });
  }
  return pipeline;
}

/**
 * @param count kills that hit a run before its end; runs that were quicker are done again and counted apart
 * @param kind what the output is
 * @returns how often the target was the old output, the new one, or (folders only, between two renames) neither,
 *   which the next run mends
 */
export async function killRuns(count, kind) {
  const random = seedRandom(SEED);
  const folder = mkdtempSync(join(tmpdir(), "arrowquant-kill-"));
  const place = join(folder, "place");
  mkdirSync(place);
  const input = kind === "folder" ? makePipeline(folder) : fileURLToPath(new URL("unet-mnist", MODELS));
  const more = kind === "folder" ? ["--components", "unet,unet_2"] : [];
  const name = kind === "folder" ? "out" : "out.parquet";
  const output = join(place, name);
  const tally = { kills: 0, old: 0, new: 0, aside: 0, finished: 0, leftovers: 0, reruns: 0 };
  try {
    const whole = new Map();
    let seconds = 0;
    for (const bits of BIT_WIDTHS) {
      const startedAt = performance.now();
      await finish(input, output, bits, more);
      seconds = (performance.now() - startedAt) / 1000;
      whole.set(bits, contentOf(output));
    }
    let standing = BIT_WIDTHS.at(-1);
    for (let round = 0; tally.kills < count; round++) {
      const bits = BIT_WIDTHS.find((width) => width !== standing);
      const startedAt = performance.now();
      const { child, ended } = start(input, output, bits, more);
      await Promise.race([wait(1000 * seconds * (0.1 + random())), ended]);
      child.kill("SIGKILL");
      const { signal } = await ended;
      tally[signal === "SIGKILL" ? "kills" : "finished"] += 1;
      // The machine may be quicker now than when it was measured.
      if (signal !== "SIGKILL") seconds = (performance.now() - startedAt) / 1000;
      tally.leftovers += readdirSync(place).some((entry) => entry !== name) ? 1 : 0;
      const content = contentOf(output);
      if (content === whole.get(standing)) tally.old += 1;
      else if (content === whole.get(bits)) tally.new += 1;
      else if (kind === "folder" && content === null) tally.aside += 1;
      else throw new Error(`round ${round}: the target is neither the old output nor the new one`);
      if (content === whole.get(bits)) standing = bits;
      if (round % RERUN_EVERY === RERUN_EVERY - 1 || content === null) {
        await finish(input, output, bits, more);
        standing = bits;
        tally.reruns += 1;
        if (contentOf(output) !== whole.get(bits)) throw new Error(`round ${round}: a rerun gives other bytes`);
        const entries = readdirSync(place);
        if (entries.length !== 1) throw new Error(`round ${round}: a rerun leaves ${entries.join(", ")}`);
      }
    }
    return tally;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const count = Number(process.argv[2] ?? 200);
  for (const kind of ["file", "folder"]) console.log(kind, JSON.stringify(await killRuns(count / 2, kind)));
}
