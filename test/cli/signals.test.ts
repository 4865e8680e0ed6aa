import { once } from "node:events";
import { type FSWatcher, readdirSync, watch } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { temporaryFolder, wave, writeModel } from "./models.js";
import { documentOf, type Ended, start, waitFor } from "./program.js";

const folder = temporaryFolder();
/** Holes on disk, 1 GiB of zeros to read: long enough to be in the middle of. */
const large = writeModel(
  join(folder, "large.safetensors"),
  Array.from({ length: 32 }, (_, index) => ({ name: `blocks.${index}.attn.to_q.weight`, shape: [2048, 4096] })),
);
const small = writeModel(join(folder, "small.safetensors"), [{ name: "a.weight", shape: [32, 64], values: wave }]);

const flags = ["--modality", "image", "--method", "rtn", "--threads", "1", "--json"];

/** Resolves when the run has begun to write, as its temporary file shows. */
async function whenWriting(place: string): Promise<void> {
  const watcher: FSWatcher = watch(place);
  try {
    for (;;) {
      if (readdirSync(place).some((name) => name.endsWith(".tmp"))) return;
      await once(watcher, "change");
    }
  } finally {
    watcher.close();
  }
}

async function interrupt(args: readonly string[], place: string, ...signals: NodeJS.Signals[]): Promise<Ended> {
  const child = start(args);
  const ended = waitFor(child);
  await Promise.race([whenWriting(place), ended]);
  for (const signal of signals) child.kill(signal);
  return ended;
}

describe.each([
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const)("%s", (signal, exitCode) => {
  it(`in the middle of quantize ends it with ${exitCode}, nothing left behind`, async () => {
    const place = temporaryFolder();
    const ended = await interrupt(["quantize", large, "-o", join(place, "out.parquet"), ...flags], place, signal);
    expect({ code: ended.code, signal: ended.signal }).toEqual({ code: exitCode, signal: null });
    expect(documentOf(ended)).toMatchObject({
      ok: false,
      command: "quantize",
      error: { code: "E_INTERRUPTED", details: { signal } },
    });
    expect(ended.stderr).toBe(`E_INTERRUPTED: stopped by ${signal}\n`);
    expect(readdirSync(place)).toEqual([]);
  });
});

describe("a batch that is interrupted", () => {
  it("reports the jobs that were not run, exit 130", async () => {
    const place = temporaryFolder();
    const line = ["batch", "--model", large, "--model", small, "--output-dir", place, ...flags];
    const ended = await interrupt(line, place, "SIGINT");
    expect(ended.code).toBe(130);
    const document = documentOf(ended);
    expect(document).toMatchObject({ ok: false, error: { code: "E_INTERRUPTED" }, summary: { not_run: 2, failed: 0 } });
    const results = document.results as { status: string; reason: string }[];
    expect(results.map(({ status }) => status)).toEqual(["interrupted", "not_run"]);
    expect(readdirSync(place)).toEqual([]);
  });
});

describe("a second signal", () => {
  it("ends the process at once, and the next run sweeps what is left", async () => {
    const place = temporaryFolder();
    const output = join(place, "out.parquet");
    const ended = await interrupt(["quantize", large, "-o", output, ...flags], place, "SIGTERM", "SIGTERM");
    // Two signals may arrive as one; the first then ends the run in its own way, with the same code.
    expect(ended.code).toBe(143);
    const next = await waitFor(start(["quantize", small, "-o", output, ...flags]));
    expect(next.code).toBe(0);
    expect(readdirSync(place)).toEqual(["out.parquet"]);
  });
});
