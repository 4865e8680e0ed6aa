import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, watch, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { temporaryFolder, UNET, wave, writeModel } from "../cli/models.js";
import { BINARY, run, start, waitFor } from "../cli/program.js";
import { CANNOT_MOUNT, failureOf, leaveRoom, mountTmpfs, quantizeLine, testFolder } from "./program.js";

const folder = temporaryFolder();
const PAGE = 4096;
/** 64 MiB of source, 16 MiB of codes at 8 bits: too much to be held under the least cap, so it is spilled. */
const large = writeModel(join(folder, "large.safetensors"), [
  { name: "blocks.0.attn.to_q.weight", shape: [4096, 4096] },
]);
const small = writeModel(join(folder, "small.safetensors"), [{ name: "a.weight", shape: [32, 64], values: wave }]);
let finished: Buffer;
beforeAll(async () => {
  const path = join(folder, "finished.parquet");
  expect((await run(quantizeLine(UNET, path, 8))).code).toBe(0);
  finished = readFileSync(path);
});

function footerBytes(file: Buffer): number {
  return file.readUInt32LE(file.length - 8) + 8;
}

describe.skipIf(CANNOT_MOUNT !== null)(
  `a full disk${CANNOT_MOUNT === null ? "" : ` (skipped: ${CANNOT_MOUNT})`}`,
  () => {
    it.each([
      ["at the first byte", () => 0],
      ["in the middle", () => finished.length / 2],
      ["at the footer", () => Math.ceil((finished.length - footerBytes(finished)) / PAGE) * PAGE],
    ])("%s fails the run and leaves the old output", async (_where, roomBytes) => {
      const disk = mountTmpfs("size=32m");
      const output = join(disk, "out.parquet");
      expect((await run(quantizeLine(UNET, output, 4))).code).toBe(0);
      const old = readFileSync(output);
      leaveRoom(disk, Math.floor(roomBytes() / PAGE) * PAGE);
      const ended = await run(quantizeLine(UNET, output, 8));
      expect(failureOf(ended)).toEqual({ exitCode: 1, code: "E_WRITE", hint: expect.stringContaining("disk is full") });
      expect(readdirSync(disk).sort()).toEqual(["filler", "out.parquet"]);
      expect(readFileSync(output).equals(old)).toBe(true);
      rmSync(join(disk, "filler"));
      expect((await run(quantizeLine(UNET, output, 8))).code).toBe(0);
      expect(readFileSync(output).equals(finished)).toBe(true);
    });

    it("in a spill file fails the run and leaves nothing", async () => {
      const disk = mountTmpfs("size=8m");
      const line = quantizeLine(large, join(disk, "out.parquet"), 8, "--modality", "image", "--memory", "256MiB");
      const child = start(line);
      const names = new Set<string>();
      const watcher = watch(disk, (_event, name) => names.add(String(name)));
      const ended = await waitFor(child);
      watcher.close();
      expect(failureOf(ended)).toEqual({ exitCode: 1, code: "E_WRITE", hint: expect.stringContaining("disk is full") });
      expect([...names].some((name) => name.endsWith(".spill"))).toBe(true);
      expect(readdirSync(disk)).toEqual([]);
    });

    it("in an export leaves nothing", async () => {
      const disk = mountTmpfs("size=1m");
      const line = ["export", join(folder, "finished.parquet"), "-o", join(disk, "out.safetensors"), "--dtype", "f32"];
      expect(failureOf(await run([...line, "--json"]))).toMatchObject({ exitCode: 1, code: "E_WRITE" });
      expect(readdirSync(disk)).toEqual([]);
    });

    it("that is read-only is refused with its reason", async () => {
      const disk = mountTmpfs("ro");
      const failure = failureOf(await run(quantizeLine(small, join(disk, "out.parquet"), 4, "--modality", "image")));
      expect(failure).toEqual({ exitCode: 1, code: "E_WRITE", hint: "the file system is read-only" });
    });
  },
);

it("a limit on the size of files fails the run and leaves the old output", async () => {
  const place = testFolder();
  const output = join(place, "out.parquet");
  expect((await run(quantizeLine(UNET, output, 4))).code).toBe(0);
  const old = readFileSync(output);
  // In blocks of 512 bytes.
  const limited = ["-c", 'ulimit -f 512; exec "$@"', "sh", process.execPath, BINARY, ...quantizeLine(UNET, output, 8)];
  const ended = await waitFor(spawn("sh", limited, { stdio: ["ignore", "pipe", "pipe"] }));
  expect(failureOf(ended)).toMatchObject({ exitCode: 1, code: "E_WRITE", hint: expect.stringContaining("limit") });
  expect(readdirSync(place)).toEqual(["out.parquet"]);
  expect(readFileSync(output).equals(old)).toBe(true);
});

it("a folder that is a file is refused with its reason", async () => {
  const place = testFolder();
  writeFileSync(join(place, "file"), "");
  const line = quantizeLine(small, join(place, "file", "out.parquet"), 4, "--modality", "image");
  expect(failureOf(await run(line))).toEqual({ exitCode: 1, code: "E_WRITE", hint: "a part of the path is a file" });
});

it("an output folder that is removed meanwhile fails the run", async () => {
  const place = join(testFolder(), "place");
  mkdirSync(place);
  const child = start(quantizeLine(large, join(place, "out.parquet"), 8, "--modality", "image"));
  const ended = waitFor(child);
  const watcher = watch(place);
  await once(watcher, "change");
  watcher.close();
  rmSync(place, { recursive: true });
  expect(failureOf(await ended)).toMatchObject({ exitCode: 1, code: "E_WRITE" });
  expect(() => statSync(place)).toThrow("ENOENT");
});
