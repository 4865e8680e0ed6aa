import { existsSync, readdirSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Session } from "../../dist/engine/session.js";
import { openModel } from "../../dist/formats/open.js";
import { indexText, splitIntoShards } from "../../dist/formats/safetensors/shards.js";
import { exportNative } from "../../dist/quantize/export.js";
import type { ExportJob } from "../../dist/quantize/export-job.js";
import { quantizeModel } from "../../dist/quantize/quantize.js";
import { buildSafetensors } from "../hostile/safetensors/build.js";
import { listTree, type ReadTensor, readSafetensors, readWeights } from "./exported.js";
import { gaussianPart, useFolder } from "./source.js";

/** Three bfloat16 shards with an index. */
const DIT = fileURLToPath(new URL("../models/dit-mnist", import.meta.url));

const folder = useFolder();
const session = new Session({ threads: 2 });
afterAll(() => session.dispose());

const failureOf = (job: ExportJob) => exportNative(job, session).catch((thrown) => thrown);
const leftovers = () => readdirSync(folder.path()).filter((name) => name.includes(".arrowquant-"));

type Contents = Readonly<Record<string, string | Uint8Array>>;

async function makeFolder(name: string, contents: Contents): Promise<string> {
  const root = folder.path(name);
  for (const [path, content] of Object.entries(contents)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), content);
  }
  return root;
}

const weights = (seed: number) =>
  buildSafetensors([gaussianPart("a.weight", [32, 64], seed), gaussianPart("a.bias", [32], seed + 1)]);

const settings = { modality: "image", method: "rtn", min_accuracy: 0 } as const;

/** A pipeline with everything that stands in published ones: variants, other formats, hidden files, folders of no loader. */
const PIPELINE: Contents = {
  "model_index.json": JSON.stringify({
    _class_name: "TwoStagePipeline",
    scheduler: ["diffusers", "DDIMScheduler"],
    transformer: ["diffusers", "T"],
    transformer_2: ["diffusers", "T"],
    text_encoder: ["transformers", "CLIPTextModel"],
    safety_checker: [null, null],
  }),
  "README.md": "# readme",
  ".gitattributes": "hidden",
  "single-file.safetensors": weights(1),
  "onnx/model.onnx": "graph",
  "safety_checker/config.json": "{}",
  "scheduler/scheduler_config.json": "{}",
  "transformer/config.json": '{"_class_name":"T", "big":123456789012345678901, "far": Infinity}',
  "transformer/modeling.py": "class T: ...",
  "transformer/diffusion_pytorch_model.safetensors": weights(3),
  "transformer/diffusion_pytorch_model.fp16.safetensors": weights(5),
  "transformer/diffusion_pytorch_model.bin": "pickle",
  "transformer_2/config.json": "{}",
  "transformer_2/diffusion_pytorch_model.safetensors": weights(7),
  "text_encoder/config.json": "{}",
  "text_encoder/model.safetensors": weights(9),
  "text_encoder/sub/merges.txt": "a b",
};

const OURS = ["transformer/diffusion_pytorch_model.safetensors", "transformer_2/diffusion_pytorch_model.safetensors"];
const COPIED = [
  ...["README.md", "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json"],
  ...["text_encoder/model.safetensors", "text_encoder/sub/merges.txt", "transformer/config.json"],
  ...["transformer/modeling.py", "transformer_2/config.json"],
];

describe("a folder like the original", () => {
  const native = () => folder.path("dit.parquet");
  let pipeline = "";
  let natives = "";

  beforeAll(async () => {
    await quantizeModel({ input: DIT, output: native(), config: { method: "rtn", min_accuracy: 0 } }, session);
    pipeline = await makeFolder("pipeline", PIPELINE);
    natives = folder.path("natives");
    await quantizeModel({ input: pipeline, output: natives, config: settings }, session);
  });

  it("has its shards, index, configurations, and the weights of the plain export", async () => {
    const output = folder.path("dit-like");
    const result = await exportNative({ input: native(), output, like: DIT, dtype: "BF16" }, session);
    expect(listTree(output)).toEqual(listTree(DIT));
    expect(result).toMatchObject({ files: listTree(DIT), leftOut: [], packed: null, warnings: [] });
    expect(result.bytesOut).toBe(listTree(output).reduce((sum, name) => sum + statSync(join(output, name)).size, 0));
    for (const name of ["model_index.json", "scheduler/scheduler_config.json", "transformer/config.json"]) {
      expect(readFileSync(join(output, name)).equals(readFileSync(join(DIT, name))), name).toBe(true);
    }
    const index = "transformer/diffusion_pytorch_model.safetensors.index.json";
    expect(JSON.parse(readFileSync(join(output, index), "utf8"))).toEqual(
      JSON.parse(readFileSync(join(DIT, index), "utf8")),
    );

    const plain = folder.path("dit.safetensors");
    await exportNative({ input: native(), output: plain, dtype: "BF16" }, session);
    const [found, expected] = [readWeights(join(output, "transformer")), readSafetensors(plain)];
    expect([...found.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [name, { dtype, shape, bytes }] of found) {
      const other = expected.get(name) as ReadTensor;
      expect({ dtype, shape }, name).toEqual({ dtype: other.dtype, shape: other.shape });
      expect(bytes.equals(other.bytes), name).toBe(true);
    }
  });

  it("of another type has the same shards, and what this program reads of it says so", async () => {
    const output = folder.path("dit-like-f32");
    await exportNative({ input: native(), output, like: join(DIT, "transformer"), dtype: "F32" }, session);
    expect(listTree(output)).toEqual(listTree(join(DIT, "transformer")));
    const [model, original] = [await openModel(output), await openModel(join(DIT, "transformer"))];
    expect(model.warnings).toEqual([]);
    const placed = (of: typeof model) =>
      of.components[0]?.tensors
        .map(({ name, location }) => `${name} ${of.components[0]?.files[location.file]?.name}`)
        .sort();
    expect(placed(model)).toEqual(placed(original));
    expect(new Set(model.components[0]?.tensors.map(({ dtype }) => dtype))).toEqual(new Set(["F32"]));
  });

  it("of a pipeline holds all that loaders read, and lists the rest", async () => {
    const output = folder.path("pipeline-like");
    const result = await exportNative({ input: natives, output, like: pipeline, dtype: "F16" }, session);
    expect(listTree(output)).toEqual([...OURS, ...COPIED].sort());
    for (const name of COPIED)
      expect(readFileSync(join(output, name)), name).toEqual(Buffer.from(PIPELINE[name] ?? ""));
    expect([...result.leftOut].sort()).toEqual([
      ".gitattributes",
      "onnx/",
      "safety_checker/",
      "single-file.safetensors",
      "transformer/diffusion_pytorch_model.bin",
      "transformer/diffusion_pytorch_model.fp16.safetensors",
    ]);
    for (const name of OURS) {
      const tensors = readSafetensors(join(output, name));
      expect([...tensors].map(([tensor, { dtype }]) => [tensor, dtype])).toEqual([
        ["a.weight", "F16"],
        ["a.bias", "F16"],
      ]);
      expect(tensors.get("a.weight")?.bytes.length).toBe(2 * 32 * 64);
    }
  });

  it("names the variant's files where that was meant", async () => {
    const output = folder.path("variant-like");
    const input = join(natives, "transformer.parquet");
    await exportNative({ input, output, like: join(pipeline, "transformer"), variant: "fp16", dtype: "F16" }, session);
    expect(listTree(output)).toEqual(["config.json", "diffusion_pytorch_model.fp16.safetensors", "modeling.py"]);
  });

  it("copies no file that a link fetches from elsewhere", async () => {
    const root = await makeFolder("linked", { ...PIPELINE });
    symlinkSync("/etc/hostname", join(root, "scheduler/notes.txt"));
    const output = folder.path("linked-like");
    expect(await failureOf({ input: natives, output, like: root, dtype: "F32" })).toMatchObject({ code: "E_PATH" });
    expect(existsSync(output)).toBe(false);
  });

  it("is refused where the original has other tensors", async () => {
    const other = await makeFolder("other", {
      "config.json": "{}",
      "model.safetensors": buildSafetensors([gaussianPart("a.weight", [64, 32], 1), gaussianPart("b.bias", [32], 2)]),
    });
    const input = join(natives, "transformer.parquet");
    expect(await failureOf({ input, output: folder.path("none"), like: other, dtype: "F32" })).toMatchObject({
      code: "E_MISMATCH",
      exitCode: 4,
      details: { missing: ["b.bias"], extra: ["a.bias"], misshapen: ["a.weight"] },
    });
  });

  it("never takes the place of what is read", async () => {
    for (const output of [folder.path(), natives, pipeline, join(pipeline, "transformer_2")]) {
      const job = { input: natives, output, like: pipeline, dtype: "BF16", force: true } as const;
      expect(await failureOf(job)).toMatchObject({
        code: "E_OUTPUT",
        message: expect.stringContaining("what is read"),
      });
    }
    expect(listTree(pipeline)).toEqual(Object.keys(PIPELINE).sort());
  });

  it("takes the place of a folder with something in it only where told to", async () => {
    const output = await makeFolder("theirs", { "notes.txt": "somebody's work" });
    const job = { input: natives, output, like: pipeline, dtype: "BF16" } as const;
    expect(await failureOf(job)).toMatchObject({ code: "E_OUTPUT", exitCode: 2 });
    expect(readFileSync(join(output, "notes.txt"), "utf8")).toBe("somebody's work");
    await exportNative({ ...job, force: true }, session);
    expect(listTree(output)).toEqual([...OURS, ...COPIED].sort());
  });

  it("leaves nothing behind when it is stopped", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const output = folder.path("stopped");
    const onProgress = ({ phase }: { phase: string }) => {
      if (phase === "export") controller.abort(reason);
    };
    const job = { input: native(), output, like: DIT, dtype: "F32", signal: controller.signal, onProgress } as const;
    expect(await failureOf(job)).toBe(reason);
    expect(existsSync(output)).toBe(false);
    expect(leftovers()).toEqual([]);
  });
});

describe("a folder without an original", () => {
  it.each([
    ['{"_class_name":"UNet2DModel","sample_size":16}', "diffusion_pytorch_model"],
    ['{"architectures":["CLIPTextModel"],"torch_dtype":"float32"}', "model"],
  ])("of %s holds %s.safetensors, cut where it grows too large", async (config, base) => {
    const parts = [0, 1, 2, 3].map((index) => gaussianPart(`blocks.${index}.weight`, [32, 64], index));
    const input = await makeFolder(`source-${base}`, {
      "config.json": config,
      "model.safetensors": buildSafetensors(parts),
    });
    const native = folder.path(`${base}.parquet`);
    await quantizeModel({ input, output: native, config: settings }, session);
    const whole = folder.path(`${base}-whole`);
    await exportNative({ input: native, output: whole, dtype: "F32" }, session);
    expect(listTree(whole)).toEqual(["config.json", `${base}.safetensors`].sort());
    expect(readFileSync(join(whole, "config.json"), "utf8")).toBe(config);
    const cut = folder.path(`${base}-cut`);
    const { files } = await exportNative({ input: native, output: cut, dtype: "F32", maxShardBytes: 20_000 }, session);
    expect(files).toEqual([
      ...["config.json", `${base}-00001-of-00002.safetensors`, `${base}-00002-of-00002.safetensors`],
      `${base}.safetensors.index.json`,
    ]);
    expect(readWeights(cut, base)).toEqual(new Map([...readWeights(whole, base)].sort()));
    expect((await openModel(cut)).warnings).toEqual([]);
  });

  it("changes in the configuration only what is no longer so of the weights", async () => {
    const config = `{"architectures":["A"], "big": 123456789012345678901, "far":Infinity,"dtype":"bfloat16",
      "quantization_config":{"quant_method":"fp8"}}`;
    const input = await makeFolder("fp8", { "config.json": config, "model.safetensors": weights(1) });
    const native = folder.path("fp8.parquet");
    await quantizeModel({ input, output: native, config: settings }, session);
    const output = folder.path("fp8-plain");
    const { warnings } = await exportNative({ input: native, output, dtype: "F16" }, session);
    expect(readFileSync(join(output, "config.json"), "utf8")).toBe(
      '{\n  "architectures":["A"],\n  "big": 123456789012345678901,\n  "far":Infinity,\n  "dtype": "float16"\n}\n',
    );
    expect(warnings).toEqual([expect.stringContaining("quantization_config")]);
  });

  it.each([
    [{ output: "x.pt" }, "E_USAGE"],
    [{ output: "x.safetensors", like: "y" }, "E_CONFLICT"],
    [{ output: "x.safetensors", packed: true }, "E_CONFLICT"],
    [{ output: "x.safetensors", maxShardBytes: 1 }, "E_CONFLICT"],
    [{ output: "x", like: "y", maxShardBytes: 1 }, "E_CONFLICT"],
    [{ output: "x", variant: "fp16" }, "E_CONFLICT"],
    [{ output: "x", like: "/nowhere" }, "E_NOT_FOUND"],
  ] as const)("%j is %s", async (given, code) => {
    const job = { input: folder.path("dit.parquet"), dtype: "F32", ...given } as const;
    expect(await failureOf({ ...job, output: folder.path(given.output) })).toMatchObject({ code });
  });
});

describe("shards", () => {
  const tensors = fc
    .uniqueArray(fc.string({ minLength: 1 }), { minLength: 1, maxLength: 30 })
    .chain((names) =>
      fc.tuple(...names.map((name) => fc.nat(40).map((size) => ({ name, dtype: "F32", shape: [size] }) as const))),
    );

  it("hold every tensor once, in order, and no more than they may unless it is one tensor", () => {
    fc.assert(
      fc.property(tensors, fc.integer({ min: 1, max: 400 }), (given, maxBytes) => {
        const shards = splitIntoShards(given, "m", maxBytes);
        expect(shards.flatMap((shard) => shard.tensors)).toEqual(given);
        for (const [index, { fileName, tensors: held }] of shards.entries()) {
          const bytes = held.reduce((sum, { shape: [size] }) => sum + 4 * (size as number), 0);
          expect(held.length === 1 || bytes <= maxBytes).toBe(true);
          const number = (value: number) => String(value).padStart(5, "0");
          const numbered = `m-${number(index + 1)}-of-${number(shards.length)}.safetensors`;
          expect(fileName).toBe(shards.length === 1 ? "m.safetensors" : numbered);
        }
        const index = JSON.parse(indexText(shards));
        expect(index.metadata.total_size).toBe(given.reduce((sum, { shape: [size] }) => sum + 4 * size, 0));
        expect(Object.entries(index.weight_map).sort()).toEqual(
          shards.flatMap(({ fileName, tensors: held }) => held.map(({ name }) => [name, fileName])).sort(),
        );
      }),
    );
  });
});
