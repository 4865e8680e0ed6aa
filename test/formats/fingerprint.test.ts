import { createHash } from "node:crypto";
import { closeSync, cpSync, ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { fingerprintComponent } from "../../dist/formats/fingerprint.js";
import { openModel } from "../../dist/formats/open.js";
import type { Component } from "../../dist/tensor/info.js";
import { buildFile, buildSafetensors, float32Part } from "../hostile/safetensors/build.ts";
import { folderMaker, weights } from "./folders.ts";

const make = folderMaker();
const shipped = fileURLToPath(new URL("../models/", import.meta.url));

async function open(path: string): Promise<Component> {
  return (await openModel(path)).components[0] as Component;
}

/** The encoding as fingerprint.ts documents it, from whole files. */
function fingerprintWhole(files: readonly { name: string; bytes: Buffer }[]): string {
  const hash = createHash("sha256");
  const u64 = (value: number): Buffer => {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(value >>> 0, 0);
    bytes.writeUInt32LE(Math.floor(value / 2 ** 32), 4);
    return bytes;
  };
  for (const { name, bytes } of files) {
    const header = bytes.subarray(0, 8 + Number(bytes.readBigUInt64LE(0)));
    hash
      .update(u64(Buffer.byteLength(name)))
      .update(name)
      .update(u64(bytes.length))
      .update(u64(header.length))
      .update(header);
    if (bytes.length <= 4_194_304) hash.update(bytes);
    else {
      for (let block = 0; block < 64; block += 1) {
        const at = Number((BigInt(block) * BigInt(bytes.length - 65536)) / 63n);
        hash.update(bytes.subarray(at, at + 65536));
      }
    }
  }
  return hash.digest("hex");
}

describe("the fingerprint", () => {
  it("is the documented one of the shipped models", async () => {
    const unet = join(shipped, "unet-mnist/unet");
    const file = "diffusion_pytorch_model.safetensors";
    expect(await fingerprintComponent(await open(unet))).toBe(
      fingerprintWhole([{ name: file, bytes: readFileSync(join(unet, file)) }]),
    );
    const dit = join(shipped, "dit-mnist/transformer");
    const shards = [1, 2, 3].map((number) => `diffusion_pytorch_model-0000${number}-of-00003.safetensors`);
    expect(await fingerprintComponent(await open(dit))).toBe(
      fingerprintWhole(shards.map((name) => ({ name, bytes: readFileSync(join(dit, name)) }))),
    );
  });

  it("is the documented one at the size where blocks take over from the whole file", async () => {
    for (const byteLength of [4_194_303, 4_194_304, 4_194_305, 4_300_000]) {
      const header = JSON.stringify({ a: { dtype: "U8", shape: [0], data_offsets: [0, 0] } });
      const body = Uint8Array.from({ length: byteLength - 8 - header.length }, (_, index) => (index * 31) % 251);
      const sized = header.replace("[0]", `[${body.length}]`).replace("[0,0]", `[0,${body.length}]`);
      const bytes = buildFile(sized, body.subarray(0, body.length));
      const folder = make({ "é.safetensors": bytes });
      expect(await fingerprintComponent(await open(folder))).toBe(fingerprintWhole([{ name: "é.safetensors", bytes }]));
    }
  });

  it("does not depend on where the model lies or in which order its files were found", async () => {
    const folder = make({});
    cpSync(join(shipped, "dit-mnist/transformer"), join(folder, "transformer"), { recursive: true });
    const here = await open(join(folder, "transformer"));
    const there = await open(join(shipped, "dit-mnist/transformer"));
    const turned: Component = { ...there, files: [...there.files].reverse() };
    expect(await fingerprintComponent(here)).toBe(await fingerprintComponent(there));
    expect(await fingerprintComponent(turned)).toBe(await fingerprintComponent(there));
  });

  it("changes with a weight, a name and a header", async () => {
    const bytes = buildSafetensors([float32Part("a", [2], 1, 2)]);
    const changes: Record<string, Uint8Array>[] = [
      { "x.safetensors": bytes },
      { "x.safetensors": buildSafetensors([float32Part("a", [2], 1, 3)]) },
      { "y.safetensors": bytes },
      { "x.safetensors": buildSafetensors([float32Part("b", [2], 1, 2)]) },
      { "x.safetensors": buildSafetensors([float32Part("a", [2], 1, 2)], { format: "pt" }) },
    ];
    const seen = new Set<string>();
    for (const contents of changes) seen.add(await fingerprintComponent(await open(make(contents))));
    expect(seen.size).toBe(changes.length);
  });

  it("tells apart files whose names and contents run together", async () => {
    const map = (first: string, second: string): object => ({ weight_map: { a: first, b: second } });
    const one = make({ "i.safetensors.index.json": map("x", "xx"), x: weights("a"), xx: weights("b") });
    const two = make({ "i.safetensors.index.json": map("xx", "x"), xx: weights("a"), x: weights("b") });
    expect(await fingerprintComponent(await open(one))).not.toBe(await fingerprintComponent(await open(two)));
  });

  it("of 6 GiB sees the first and the last byte of the data", async () => {
    const size = 6 * 2 ** 30;
    const header = JSON.stringify({ a: { dtype: "U8", shape: [size], data_offsets: [0, size] } });
    const start = buildFile(header);
    const folder = make({ "x.safetensors": start });
    const path = join(folder, "x.safetensors");
    const file = openSync(path, "r+");
    // Sparse: nothing but the header and the bytes written below is stored.
    ftruncateSync(file, start.length + size);
    const seen = new Set([await fingerprintComponent(await open(path))]);
    for (const at of [start.length, start.length + size - 1]) {
      writeSync(file, Uint8Array.of(1), 0, 1, at);
      seen.add(await fingerprintComponent(await open(path)));
    }
    closeSync(file);
    writeFileSync(path, "");
    expect(seen.size).toBe(3);
  });
});
