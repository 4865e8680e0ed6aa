import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { OutputFile, type OutputOptions, OutputTarget } from "../../dist/io/output.js";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-output-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

const file = (over: Partial<OutputOptions> = {}): OutputOptions => ({
  kind: "file",
  force: false,
  inputs: [],
  isOurs: async () => true,
  ...over,
});

/** Id of a process that has just ended. */
function deadPid(): number {
  return spawnSync(process.execPath, ["-e", ""]).pid;
}

describe("OutputTarget", () => {
  it("shows nothing under its name until it is committed, and leaves nothing else behind", async () => {
    const target = await OutputTarget.prepare(join(folder, "out"), file());
    const output = await OutputFile.create(target.temporaryPath);
    await output.write(new TextEncoder().encode("whole"));
    await output.sync();
    await output.close();
    expect(await readdir(folder)).not.toContain("out");
    expect(target.temporaryPath).toContain(`-${process.pid}-`.slice(1));
    await target.commit();
    expect(await readdir(folder)).toEqual(["out"]);
    expect(await readFile(join(folder, "out"), "utf8")).toBe("whole");
  });

  it("keeps the old file where the new one is discarded", async () => {
    await writeFile(join(folder, "out"), "old");
    const target = await OutputTarget.prepare(join(folder, "out"), file());
    await writeFile(target.temporaryPath, "new");
    await target.discard();
    expect(await readdir(folder)).toEqual(["out"]);
    expect(await readFile(join(folder, "out"), "utf8")).toBe("old");
  });

  it("swaps folders as a whole", async () => {
    await mkdir(join(folder, "out"));
    await writeFile(join(folder, "out", "a.parquet"), "old");
    const target = await OutputTarget.prepare(join(folder, "out"), file({ kind: "folder" }));
    await mkdir(target.temporaryPath);
    await writeFile(join(target.temporaryPath, "b.parquet"), "new");
    await target.commit();
    expect(await readdir(folder)).toEqual(["out"]);
    expect(await readdir(join(folder, "out"))).toEqual(["b.parquet"]);
  });

  it.each([
    ["another program's file", "file", file({ isOurs: async () => false })],
    ["a folder where a file is wanted", "folder", file()],
    ["a file where a folder is wanted", "file", file({ kind: "folder" })],
  ] as const)("refuses %s", async (_what, existing, options) => {
    const path = join(folder, "out");
    if (existing === "file") await writeFile(path, "precious");
    else await mkdir(path);
    await expect(OutputTarget.prepare(path, options)).rejects.toMatchObject({ code: "E_OUTPUT" });
  });

  it("refuses the input itself, also through a link, unless forced", async () => {
    const input = join(folder, "model");
    const link = join(folder, "link");
    await writeFile(input, "weights");
    await symlink(input, link);
    for (const path of [input, link]) {
      const options = file({ inputs: [input] });
      await expect(OutputTarget.prepare(path, options)).rejects.toMatchObject({ code: "E_OUTPUT" });
      await expect(OutputTarget.prepare(path, { ...options, force: true })).resolves.toBeInstanceOf(OutputTarget);
    }
  });

  it("sweeps what dead processes left, and only that", async () => {
    const dead = deadPid();
    const left = [`out.arrowquant-${dead}-0123abcd.tmp`, `other.arrowquant-${dead}-0123abcd.spill`];
    const kept = [`out.arrowquant-${process.pid}-0123abcd.tmp`, `out.arrowquant-${dead}.tmp`, "model.tmp"];
    for (const name of [...left, ...kept]) await writeFile(join(folder, name), "");
    await OutputTarget.prepare(join(folder, "out"), file());
    expect((await readdir(folder)).sort()).toEqual([...kept].sort());
  });

  it("puts back a folder that a dead process had moved aside", async () => {
    await mkdir(join(folder, `out.arrowquant-${deadPid()}-0123abcd.old`));
    await OutputTarget.prepare(join(folder, "out"), file({ kind: "folder" }));
    expect(await readdir(folder)).toEqual(["out"]);
  });

  it("says what keeps it from writing", async () => {
    const error = await OutputTarget.prepare(join(folder, "missing", "out"), file()).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: "E_WRITE", details: { errno: "ENOENT" } });
    expect(error.hint).toContain("does not exist");
  });
});

describe("OutputFile", () => {
  it("reads back what it wrote, at any place and in any order", async () => {
    const output = await OutputFile.create(join(folder, "out"));
    expect(await output.write(new Uint8Array([1, 2, 3]))).toBe(0);
    await output.writeAt(new Uint8Array([9, 9]), 5);
    expect(output.byteLength).toBe(7);
    await output.writeAt(new Uint8Array([4, 5]), 3);
    const bytes = new Uint8Array(7);
    await output.read(bytes, 0);
    expect([...bytes]).toEqual([1, 2, 3, 4, 5, 9, 9]);
    await output.close();
  });
});
