import { execFile } from "node:child_process";
import { appendFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { MAX_LINE_BYTES } from "../../../dist/calibration/data/jsonl.js";
import { scratchFolder } from "./rows.js";

const { place } = scratchFolder();
const SCRIPT = fileURLToPath(new URL("stream-rows.mjs", import.meta.url));

/** Most that a process which reads JSON lines may hold: Node alone takes 45 MiB. */
const MOST_MIB = 160;

async function streamRows(path: string, length: number) {
  const line = ["--max-old-space-size=48", SCRIPT, path, String(length)];
  const { stdout } = await promisify(execFile)(process.execPath, line);
  return JSON.parse(stdout) as { count: number; rejected: { row: number; reason: string }[]; peakMib: number };
}

it("JSON lines of any size are read in the same memory", async () => {
  const length = 4096;
  const line = `${JSON.stringify({ sample: Array.from({ length }, () => 0.12345678), timestep: 7 })}\n`;
  const block = line.repeat(64);
  const blocks = Math.ceil((300 * 2 ** 20) / block.length);
  const path = place("large.jsonl", "");
  for (let index = 0; index < blocks; index++) appendFileSync(path, block);
  const { count, rejected, peakMib } = await streamRows(path, length);
  expect({ count, rejected }).toEqual({ count: 64 * blocks, rejected: [] });
  expect(peakMib).toBeLessThan(MOST_MIB);
});

it("a line without end is passed over without being held", async () => {
  const row = (time: number): string => `${JSON.stringify({ sample: [1, 2], timestep: time })}\n`;
  const path = place("endless.jsonl", Array.from({ length: 20 }, (_, time) => row(time)).join(""));
  const piece = `${"1,".repeat(2 ** 21)}`;
  appendFileSync(path, '{"sample":[');
  for (let written = 0; written <= 3 * MAX_LINE_BYTES; written += piece.length) appendFileSync(path, piece);
  appendFileSync(path, `\n${row(20)}`);
  const { count, rejected, peakMib } = await streamRows(path, 2);
  expect(count).toBe(21);
  expect(rejected).toEqual([expect.objectContaining({ row: 21, reason: `longer than ${MAX_LINE_BYTES} bytes` })]);
  // The beginning of the line, up to the limit, twice while it grows.
  expect(peakMib).toBeLessThan(MOST_MIB + 2 * (MAX_LINE_BYTES / 2 ** 20));
});
