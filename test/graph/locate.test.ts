import { realpathSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { locateGraph } from "../../dist/graph/locate.js";
import { type Contents, folderMaker } from "../formats/folders.ts";

const make = folderMaker();

describe("the graph of a model", () => {
  it.each<[string, Contents, string, string | null]>([
    ["in the folder", { "model.onnx": "", "onnx/model.onnx": "" }, "", "model.onnx"],
    [
      "in a folder of its own",
      { "onnx/model.onnx": "", "unet/model.onnx": "", "model_index.json": {} },
      "",
      "onnx/model.onnx",
    ],
    [
      "in the denoiser's folder",
      { "unet/model.onnx": "", "vae/model.onnx": "", "model_index.json": {} },
      "",
      "unet/model.onnx",
    ],
    [
      "of a lone component's pipeline",
      { "onnx/model.onnx": "", "transformer/config.json": {} },
      "transformer",
      "onnx/model.onnx",
    ],
    [
      "beside the weights",
      { "transformer/w.safetensors": "", "transformer/model.onnx": "" },
      "transformer/w.safetensors",
      "transformer/model.onnx",
    ],
    [
      "of the weights' pipeline",
      { "onnx/model.onnx": "", "unet/w.safetensors": "" },
      "unet/w.safetensors",
      "onnx/model.onnx",
    ],
    ["itself", { "dit.onnx": "", "model.onnx": "" }, "dit.onnx", "dit.onnx"],
    ["not beyond a folder that is no component", { "onnx/model.onnx": "", "models/w.safetensors": "" }, "models", null],
    ["not in a denoiser's folder without a pipeline", { "unet/model.onnx": "" }, "", null],
    ["not a folder of that name", { "model.onnx/x": "" }, "", null],
  ])("is found %s", async (_title, contents, input, expected) => {
    const folder = realpathSync(make(contents));
    const found = await locateGraph(join(folder, input), null);
    expect(found).toBe(expected === null ? null : join(folder, expected));
  });

  it("is the given one, or the one in the given folder", async () => {
    const folder = make({ "a.onnx": "", "exported/model.onnx": "", "model.onnx": "" });
    expect(await locateGraph(folder, join(folder, "a.onnx"))).toBe(join(folder, "a.onnx"));
    expect(await locateGraph(folder, join(folder, "exported"))).toBe(join(folder, "exported/model.onnx"));
    for (const given of ["nothing.onnx", "exported/model"]) {
      await expect(locateGraph(folder, join(folder, given))).rejects.toMatchObject({ code: "E_NOT_FOUND" });
    }
    const empty = make({});
    await expect(locateGraph(folder, empty)).rejects.toThrow(`"${empty}" holds no model.onnx`);
  });

  it("is to be chosen where a pipeline's denoisers have one each", async () => {
    const folder = make({ "model_index.json": {}, "transformer/model.onnx": "", "transformer_2/model.onnx": "" });
    await expect(locateGraph(folder, null)).rejects.toMatchObject({ code: "E_GRAPH", hint: "choose one with --graph" });
  });
});
