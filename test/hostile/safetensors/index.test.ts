import { mkdirSync, renameSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { openModel } from "../../../dist/formats/open.js";
import { MAX_SHARDS } from "../../../dist/formats/safetensors/index.js";
import { type Contents, folderMaker, weights } from "../../formats/folders.ts";

const make = folderMaker();
const INDEX = "m.safetensors.index.json";

async function open(index: string | object, files: Contents = {}): Promise<unknown> {
  return openModel(make({ [INDEX]: index, ...files }));
}

describe("shards outside the index's folder", () => {
  // A sound file lies where each of these points, so that only the rule can refuse them.
  it.each([
    ["../out.safetensors", /climbs with/],
    ["sub/../../out.safetensors", /climbs with/],
    ["sub/../in.safetensors", /climbs with/],
    ["..\\out.safetensors", /backslash/],
    ["in.safetensors\0.txt", /NUL/],
    ["C:/in.safetensors", /absolute/],
    ["c:in.safetensors", /absolute/],
    ["", /no plain path/],
    [".", /no plain path/],
    ["./in.safetensors", /no plain path/],
    ["sub//in.safetensors", /no plain path/],
    ["/out.safetensors", /absolute/],
  ])("%j is refused", async (shard, says) => {
    const parent = make({
      "out.safetensors": weights("a"),
      "model/in.safetensors": weights("a"),
      "model/sub/in.safetensors": weights("a"),
      [`model/${INDEX}`]: { weight_map: { a: shard } },
    });
    await expect(openModel(join(parent, "model"))).rejects.toMatchObject({
      code: "E_PATH",
      message: expect.stringMatching(says),
    });
  });

  it("by their absolute path, even inside it, are refused", async () => {
    const folder = make({ "in.safetensors": weights("a") });
    const other = make({ [INDEX]: { weight_map: { a: resolve(folder, "in.safetensors") } } });
    await expect(openModel(other)).rejects.toMatchObject({
      code: "E_PATH",
      message: expect.stringContaining("absolute"),
    });
  });

  it("by a symbolic link, to a file or through a folder, are refused", async () => {
    for (const shard of ["link.safetensors", "folder/out.safetensors"]) {
      const parent = make({
        "out.safetensors": weights("a"),
        [`model/${INDEX}`]: { weight_map: { a: shard } },
      });
      symlinkSync("../out.safetensors", join(parent, "model", "link.safetensors"));
      symlinkSync("..", join(parent, "model", "folder"));
      await expect(openModel(join(parent, "model"))).rejects.toMatchObject({
        code: "E_PATH",
        message: expect.stringContaining("leads to"),
      });
    }
  });

  it("do not look inside by a common beginning of the folders' names", async () => {
    const parent = make({
      "model-2/out.safetensors": weights("a"),
      [`model/${INDEX}`]: { weight_map: { a: "link.safetensors" } },
    });
    symlinkSync("../model-2/out.safetensors", join(parent, "model", "link.safetensors"));
    await expect(openModel(join(parent, "model"))).rejects.toMatchObject({ code: "E_PATH" });
  });

  it("are not those in folders below, by links that stay inside, or in a linked folder", async () => {
    const parent = make({
      "model/sub/in.safetensors": weights("a"),
      [`model/${INDEX}`]: { weight_map: { a: "link.safetensors" } },
    });
    symlinkSync("sub/in.safetensors", join(parent, "model", "link.safetensors"));
    mkdirSync(join(parent, "elsewhere"));
    renameSync(join(parent, "model"), join(parent, "elsewhere", "model"));
    symlinkSync("elsewhere/model", join(parent, "model"));
    expect(await openModel(join(parent, "model"))).toMatchObject({
      components: [{ tensors: [{ name: "a" }] }],
    });
  });
});

describe("an index and its shards", () => {
  const one = { "1.safetensors": weights("a", "b"), "2.safetensors": weights("c") };

  it.each<[string, object, Contents, string, RegExp]>([
    [
      "a tensor that its shard does not hold",
      { a: "1.safetensors", b: "1.safetensors", c: "2.safetensors", d: "2.safetensors" },
      one,
      "E_INDEX",
      /puts "d" in "2\.safetensors", which does not hold it/,
    ],
    [
      "a tensor that the map does not name",
      { a: "1.safetensors", c: "2.safetensors" },
      one,
      "E_INDEX",
      /holds "b", .* does not name it/,
    ],
    [
      "a tensor in another shard",
      { a: "1.safetensors", b: "2.safetensors", c: "2.safetensors" },
      one,
      "E_INDEX",
      /holds "b".*puts it in "2\.safetensors"/,
    ],
    [
      "a tensor in two shards",
      { a: "1.safetensors", b: "1.safetensors", c: "2.safetensors" },
      { ...one, "2.safetensors": weights("c", "a") },
      "E_DUPLICATE",
      /"a" stands in two shards, "1\.safetensors" and "2\.safetensors"/,
    ],
    [
      "a shard that is not there",
      { a: "1.safetensors", b: "1.safetensors", c: "3.safetensors" },
      one,
      "E_NOT_FOUND",
      /names shard "3\.safetensors"/,
    ],
    [
      "a shard that is a folder",
      { a: "1.safetensors", b: "1.safetensors", c: "sub" },
      { ...one, "sub/x": "" },
      "E_READ",
      /a folder/,
    ],
    [
      "a shard that is cut off",
      { a: "1.safetensors" },
      { "1.safetensors": weights("a").subarray(0, -1) },
      "E_TRUNCATED",
      /"a" ends at byte 4/,
    ],
    ["a shard of something else", { a: INDEX }, {}, "E_HEADER_SIZE", /limit/],
  ])("%s", async (_, weight_map, files, code, says) => {
    await expect(open({ weight_map }, files)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(says),
    });
  });

  it.each<[string, string, string, RegExp]>([
    ["is empty", "", "E_INDEX", /end of the text/],
    ["is an array", "[]", "E_INDEX", /object is expected, this is an array/],
    ["has no map", "{}", "E_INDEX", /no "weight_map"/],
    ["has an empty map", '{"weight_map":{}}', "E_INDEX", /"weight_map" is empty/],
    ["has a map that is an array", '{"weight_map":["a"]}', "E_INDEX", /this is an array/],
    ["has a number for a shard", '{"weight_map":{"a":1}}', "E_INDEX", /"a": a shard's name/],
    [
      "names a tensor twice",
      '{"weight_map":{"a":"1.safetensors","\\u0061":"2.safetensors"}}',
      "E_DUPLICATE",
      /"a" stands twice/,
    ],
    [
      "has two maps",
      '{"weight_map":{"a":"1.safetensors"},"weight_map":{"a":"1.safetensors"}}',
      "E_DUPLICATE",
      /"weight_map"/,
    ],
    [
      "has two totals",
      '{"metadata":{"total_size":1,"total_size":2},"weight_map":{"a":"1.safetensors"}}',
      "E_DUPLICATE",
      /"total_size"/,
    ],
    ["goes on", '{"weight_map":{"a":"1.safetensors"}} x', "E_JSON", /goes on/],
    ["is cut off", '{"weight_map":{"a":"1.safe', "E_JSON", /ends inside a string/],
    ["is nested without end", `{"metadata":${"[".repeat(1000)}`, "E_LIMIT", /deeper than 128/],
  ])("that %s", async (_, index, code, says) => {
    await expect(open(index, { "1.safetensors": weights("a") })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(says),
    });
  });

  it("of more shards than the limit", async () => {
    const names = Array.from({ length: MAX_SHARDS + 1 }, (_, index) => [`t${index}`, `${index}.safetensors`]);
    await expect(open({ weight_map: Object.fromEntries(names) })).rejects.toMatchObject({
      code: "E_LIMIT",
      message: expect.stringContaining(`${MAX_SHARDS + 1} shards`),
    });
  });

  it.each([
    [{ total_size: 9 }, 1],
    [{ total_size: 8 }, 0],
    [{ total_size: 9.5 }, 0],
    [{ total_size: "9" }, 0],
    [{}, 0],
    [null, 0],
    [[], 0],
  ])("with metadata %j give %i warnings", async (metadata, count) => {
    const model = await open(
      { metadata, weight_map: { a: "1.safetensors", b: "1.safetensors" } },
      { "1.safetensors": weights("a", "b") },
    );
    expect((model as { warnings: string[] }).warnings).toEqual(
      count === 0 ? [] : [expect.stringMatching(/total of 9 bytes, its shards hold 8/)],
    );
  });
});
