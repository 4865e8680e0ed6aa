/** Runs a format's cases in a process of their own and notices whatever that process cannot say itself. */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { makeCase } from "./random.mjs";

const LOOP = fileURLToPath(new URL("loop.mjs", import.meta.url));
/** A case that takes longer hangs, twice: far above the limit, since other processes may have the cores. */
const HANG_SECONDS = 15;
/** A format that fails this often has one fault, many times. */
const MAX_FAILURES = 20;

/**
 * @returns {Promise<{ outcomes: Record<string, number>, failures: { index: number, problem: string, file: string }[],
 *   seconds: number }>} how many cases came to what, and the failures, each input in a file
 */
export async function fuzzFormat(format, { seed, from, to, failureFolder, hangSeconds = HANG_SECONDS }) {
  const folder = mkdtempSync(join(tmpdir(), `arrowquant-fuzz-${format.name}-`));
  const start = performance.now();
  const outcomes = {};
  const failures = [];
  const suspects = new Map();
  let seeds = [];
  const fail = (index, problem) => {
    mkdirSync(failureFolder, { recursive: true });
    const file = join(failureFolder, `${format.name}-${seed}-${index}-${format.fileName}`);
    writeFileSync(file, makeCase(format, seed, index, seeds));
    failures.push({ index, problem, file });
  };
  try {
    mkdirSync(join(folder, "seeds"));
    seeds = await format.writeSeeds(folder);
    for (const [index, bytes] of seeds.entries()) {
      writeFileSync(join(folder, "seeds", `${String(index).padStart(3, "0")}`), bytes);
    }
    let next = from;
    while (next < to && failures.length < MAX_FAILURES) {
      const ended = await runLoop(format, seed, next, to, folder, hangSeconds, (line) => {
        if (line.problem !== undefined) fail(line.index, line.problem);
        else if (line.suspect !== undefined) suspects.set(line.index, line.suspect);
        else for (const [code, count] of Object.entries(line.outcomes)) outcomes[code] = (outcomes[code] ?? 0) + count;
        return failures.length < MAX_FAILURES;
      });
      if (ended.problem === null) break;
      if (ended.isHang) suspects.set(ended.index, ended.problem);
      else fail(ended.index, ended.problem);
      next = ended.index + 1;
    }
    for (const [index, first] of suspects) {
      if (failures.length >= MAX_FAILURES) break;
      const again = [];
      const collect = (line) => {
        if (line.suspect !== undefined) again.push(line.suspect);
        return true;
      };
      const ended = await runLoop(format, seed, index, index + 1, folder, hangSeconds, collect);
      if (ended.problem !== null) fail(ended.index, ended.problem);
      else if (again.length > 0) fail(index, `${first}; again: ${again.join(", ")}`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return { outcomes, failures, seconds: (performance.now() - start) / 1000 };
}

/** One process; `problem` says why it stopped at case `index`, null where it came to the end. */
function runLoop(format, seed, from, to, folder, hangSeconds, onLine) {
  return new Promise((settle) => {
    const child = spawn(process.execPath, [LOOP, format.module, String(seed), String(from), String(to), folder], {
      stdio: ["ignore", "pipe", "pipe"],
      // glibc gives a thread an arena of 64 MiB of addresses whenever it pleases; that would look like a case's.
      env: { ...process.env, MALLOC_ARENA_MAX: "1" },
    });
    let errors = "";
    child.stderr.setEncoding("utf8").on("data", (text) => {
      errors = (errors + text).slice(-4000);
    });
    let isStopped = false;
    let isDone = false;
    const lines = createInterface({ input: child.stdout });
    lines.on("line", (text) => {
      const line = JSON.parse(text);
      if (line.next === to) isDone = true;
      if (onLine(line)) return;
      isStopped = true;
      child.kill("SIGKILL");
    });
    let hang = null;
    let seen = { text: "", time: performance.now() };
    const progress = join(folder, "progress");
    const watch = setInterval(() => {
      const text = existsSync(progress) ? readFileSync(progress, "latin1") : "";
      const now = performance.now();
      if (text !== seen.text) seen = { text, time: now };
      if (now - seen.time < hangSeconds * 1000) return;
      hang = `did not end within ${hangSeconds} s`;
      child.kill("SIGKILL");
    }, 250);
    child.on("close", (code, signal) => {
      clearInterval(watch);
      if (isDone || isStopped) return settle({ index: to, problem: null });
      const ending = signal === null ? `ended with ${code}, the case unsettled` : `was killed by ${signal}`;
      const index = Number(existsSync(progress) ? readFileSync(progress, "latin1") : from);
      settle({ index, problem: hang ?? `the process ${ending}\n${errors}`, isHang: hang !== null });
    });
  });
}
