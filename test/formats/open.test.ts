import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { FORMATS, openModel } from "../../dist/formats/open.js";
import { type Contents, folderMaker, PIPELINE, tensorsOf, weights } from "./folders.ts";

const make = folderMaker();

describe("a component folder", () => {
  it("keeps its name where it has one", async () => {
    const model = await openModel(join(make(PIPELINE), "transformer_2"));
    expect(model).toMatchObject({
      format: "component-folder",
      pipelineClassName: null,
      components: [{ name: "transformer_2", className: null }],
    });
    await expect(openModel(join(make(PIPELINE), "vae"), { components: ["unet"] })).rejects.toMatchObject({
      code: "E_COMPONENT",
      message: expect.stringContaining('one component, "vae"'),
    });
  });

  it("hands on its config.json to the byte, Python's Infinity too", async () => {
    const text = '{ "_class_name": "Mamba",\n "time_step_limit": [0.0, Infinity] }\n';
    const model = await openModel(make({ "config.json": text, "model.safetensors": weights("a") }));
    expect(model.components[0]).toMatchObject({ configText: text, className: "Mamba" });
  });

  it("with a config.json that is broken is refused", async () => {
    const folder = make({ "config.json": '{"a":1,"a":2}', "model.safetensors": weights("a") });
    await expect(openModel(folder)).rejects.toMatchObject({
      code: "E_DUPLICATE",
      message: expect.stringContaining("config.json"),
    });
  });

  it("with one file and shards takes what its library takes and says so", async () => {
    const shards = (base: string): Contents => ({
      [`${base}.safetensors`]: weights("whole"),
      [`${base}.safetensors.index.json`]: { weight_map: { part: `${base}-00001-of-00001.safetensors` } },
      [`${base}-00001-of-00001.safetensors`]: weights("part"),
    });
    const diffusers = await openModel(make(shards("diffusion_pytorch_model")));
    const transformers = await openModel(make(shards("model")));
    expect([tensorsOf(diffusers), tensorsOf(transformers)]).toEqual([{ model: ["part"] }, { model: ["whole"] }]);
    expect(diffusers.warnings).toEqual([
      expect.stringMatching(/index\.json was read, diffusion_pytorch_model\.safetensors/),
    ]);
    expect(transformers.warnings).toHaveLength(1);
  });

  it("of any name opens if there is one way to read it", async () => {
    expect(tensorsOf(await openModel(make({ "flux1-dev.safetensors": weights("a"), "notes.txt": "" })))).toEqual({
      model: ["a"],
    });
    const two = make({ "a.safetensors": weights("a"), "b.safetensors": weights("b") });
    await expect(openModel(two)).rejects.toMatchObject({
      code: "E_UNKNOWN_FORMAT",
      message: expect.stringContaining("a.safetensors, b.safetensors"),
    });
  });

  it("of shards without an index is refused", async () => {
    await expect(openModel(make({ "x-00001-of-00002.safetensors": weights("a") }))).rejects.toMatchObject({
      code: "E_INDEX",
    });
  });

  it.each([
    ["pytorch_model.bin", /pickle.*never read/],
    ["model.ckpt", /pickle/],
    ["x.gguf", /GGUF/],
    ["unet.onnx", /ONNX/],
  ])("of %s is not readable", async (name, says) => {
    await expect(openModel(make({ [name]: "x", "config.json": {} }))).rejects.toMatchObject({
      code: "E_UNKNOWN_FORMAT",
      message: expect.stringMatching(says),
    });
  });

  it("that is empty is not readable", async () => {
    await expect(openModel(make({}))).rejects.toMatchObject({
      code: "E_UNKNOWN_FORMAT",
      message: expect.stringContaining("no weights"),
    });
  });
});

describe("a lone file", () => {
  it("takes a config.json beside it only under a name of diffusers or transformers", async () => {
    const folder = make({
      "diffusion_pytorch_model.fp16.safetensors": weights("half"),
      "other.safetensors": weights("other"),
      "config.json": { _class_name: "UNet2DModel" },
    });
    for (const [file, className] of [
      ["diffusion_pytorch_model.fp16", "UNet2DModel"],
      ["other", null],
    ] as const) {
      const model = await openModel(join(folder, `${file}.safetensors`));
      expect(model).toMatchObject({
        format: "safetensors",
        components: [{ name: "model", className, files: [{ name: `${file}.safetensors` }] }],
      });
    }
  });

  it("is known by its first bytes too", async () => {
    expect(tensorsOf(await openModel(join(make({ model: weights("a") }), "model")))).toEqual({
      model: ["a"],
    });
  });

  it("that is one shard of several says so", async () => {
    const model = await openModel(
      join(make({ "m-00002-of-00003.safetensors": weights("a") }), "m-00002-of-00003.safetensors"),
    );
    expect(model.warnings).toEqual([expect.stringContaining("shard 2 of 3")]);
  });

  it("that is an index opens its shards", async () => {
    const folder = make({
      "m.safetensors.index.json": { weight_map: { a: "1.safetensors" } },
      "1.safetensors": weights("a"),
    });
    const model = await openModel(join(folder, "m.safetensors.index.json"));
    expect(model.format).toBe("safetensors-index");
    expect(tensorsOf(model)).toEqual({ model: ["a"] });
  });

  it.each<[string, string | Uint8Array, RegExp, RegExp]>([
    ["x.gguf", "PK\x03\x04", /zip archive/, /readable are/],
    ["y.gguf", "version https://git-lfs", /Git LFS pointer/, /git lfs pull/],
    ["x.ckpt", Buffer.from("PK\x03\x04rest", "latin1"), /pickle is never read/, /readable are/],
    ["x.pt", Buffer.from("\x80\x02}q", "latin1"), /pickle, which is never read/, /readable are/],
    ["x.parquet", "PAR1....", /Parquet/, /inspect/],
    ["model_index.json", '{"_class_name":"X"}', /JSON/, /folder/],
    ["x", "something", /no known format/, /readable are/],
    ["y", "", /is empty/, /readable are/],
    ["z", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", /Git LFS/, /git lfs pull/],
    ["z.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", /Git LFS/, /git lfs pull/],
  ])("%s is not readable", async (name, content, says, hint) => {
    await expect(openModel(join(make({ [name]: content }), name))).rejects.toMatchObject({
      code: "E_UNKNOWN_FORMAT",
      message: expect.stringMatching(says),
      hint: expect.stringMatching(hint),
    });
  });

  it("that is not there is not found", async () => {
    await expect(openModel(join(make({}), "nothing.safetensors"))).rejects.toMatchObject({
      code: "E_NOT_FOUND",
    });
    const file = join(make({ "a.safetensors": weights("a") }), "a.safetensors", "b");
    await expect(openModel(file)).rejects.toMatchObject({ code: "E_NOT_FOUND" });
  });
});

describe("the Hugging Face cache", () => {
  it("opens although its shards are links out of their folder", async () => {
    const cache = make({
      "models--x--y/blobs/1": weights("a"),
      "models--x--y/blobs/2": { weight_map: { a: "diffusion_pytorch_model-00001-of-00001.safetensors" } },
    });
    const folder = join(cache, "models--x--y/snapshots/0123/transformer");
    mkdirSync(folder, { recursive: true });
    symlinkSync("../../../blobs/1", join(folder, "diffusion_pytorch_model-00001-of-00001.safetensors"));
    symlinkSync("../../../blobs/2", join(folder, "diffusion_pytorch_model.safetensors.index.json"));
    expect(tensorsOf(await openModel(folder))).toEqual({ transformer: ["a"] });
    writeFileSync(join(cache, "secret"), weights("a"));
    symlinkSync("../../../../secret", join(folder, "out.safetensors"));
    writeFileSync(join(cache, "models--x--y/blobs/2"), JSON.stringify({ weight_map: { a: "out.safetensors" } }));
    await expect(openModel(folder)).rejects.toMatchObject({ code: "E_PATH" });
  });
});

describe("the table of formats", () => {
  it("names each format once", () => {
    const names = FORMATS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
  });
});
