import { describe, expect, it } from "vitest";
import { inferRoles, type RoleNames } from "../../dist/graph/roles.js";
import { type GraphSpec, graphOpener, type ValueSpecs, waves } from "./onnx-model.ts";

const open = graphOpener();

const IMAGE = { noise_pred: ["FLOAT", "batch", 4, 8, 8] } satisfies ValueSpecs;

async function rolesOf(inputs: ValueSpecs, given?: RoleNames, outputs: ValueSpecs = IMAGE) {
  return inferRoles(await open({ inputs, outputs }), given);
}

/** Code, message and hint as one text. */
async function refusalOf(inputs: ValueSpecs, given?: RoleNames, outputs?: ValueSpecs): Promise<string> {
  return rolesOf(inputs, given, outputs).then(
    () => "accepted",
    ({ code, message, hint }) => `${code}: ${message} | ${hint}`,
  );
}

describe("the inputs of exported denoisers", () => {
  it.each<[string, ValueSpecs, ValueSpecs, Record<string, unknown>]>([
    [
      "optimum's UNet",
      {
        sample: ["FLOAT", "b", 4, "h", "w"],
        timestep: ["INT64"],
        encoder_hidden_states: ["FLOAT", "b", "n", 768],
      },
      { out_sample: ["FLOAT", "b", 4, "h", "w"] },
      { sample: "sample", time: "timestep", encoderStates: "encoder_hidden_states", prediction: "out_sample" },
    ],
    [
      "optimum's SDXL UNet",
      {
        sample: ["FLOAT", "b", 4, "h", "w"],
        timestep: ["FLOAT", "steps"],
        encoder_hidden_states: ["FLOAT", "b", "n", 2048],
        text_embeds: ["FLOAT", "b", 1280],
        time_ids: ["FLOAT", "b", 6],
      },
      { out_sample: ["FLOAT", "b", 4, "h", "w"] },
      { encoderStates: "encoder_hidden_states", others: ["text_embeds", "time_ids"] },
    ],
    [
      "diffusers' Flux, in float16",
      {
        hidden_states: ["FLOAT16", "b", "tokens", 64],
        encoder_hidden_states: ["FLOAT16", "b", "n", 4096],
        pooled_projections: ["FLOAT16", "b", 768],
        timestep: ["FLOAT16", "b"],
        img_ids: ["FLOAT16", "tokens", 3],
        txt_ids: ["FLOAT16", "n", 3],
        guidance: ["FLOAT16", "b"],
      },
      { output: ["FLOAT16", "b", "tokens", 64] },
      {
        sample: "hidden_states",
        time: "timestep",
        encoderStates: "encoder_hidden_states",
        others: ["pooled_projections", "img_ids", "txt_ids", "guidance"],
      },
    ],
    [
      "the original DiT, with the variance beside the noise",
      { x: ["FLOAT", "b", 4, 32, 32], t: ["INT64", "b"], y: ["INT64", "b"] },
      { output: ["FLOAT", "b", 8, 32, 32] },
      { sample: "x", time: "t", classLabels: "y", encoderStates: null, others: [] },
    ],
    [
      "a consistency model with sigmas in a column, names decorated",
      { "onnx::noisy_audio.1": ["FLOAT", "b", 2, "samples"], "/sigma:0": ["FLOAT", "b", 1] },
      { "1234": ["FLOAT", "b", 2, "samples"] },
      { sample: "onnx::noisy_audio.1", time: "/sigma:0", prediction: "1234" },
    ],
    [
      "a graph without names that say anything: type and shape decide",
      { a: ["FLOAT", "b", 77, 32], b: ["FLOAT", "b", 4, 8, 8], c: ["INT64", "b"] },
      IMAGE,
      { sample: "b", time: "c", encoderStates: null, others: ["a"] },
    ],
    [
      "a conditioning image: the name of both, the prediction's shape of one",
      { image: ["FLOAT", "b", 9, 8, 8], latents: ["FLOAT", "b", 4, 8, 8], t: ["INT64"] },
      IMAGE,
      { sample: "latents", others: ["image"] },
    ],
    [
      "several outputs: one has a name",
      { sample: ["FLOAT", "b", 4, 8, 8], t: ["INT64"] },
      { hidden: ["FLOAT", "b", 64, 4, 4], model_output: ["FLOAT", "b", 4, 8, 8], step: ["INT64", 1] },
      { prediction: "model_output" },
    ],
  ])("%s", async (_title, inputs, outputs, expected) => {
    expect(await rolesOf(inputs, undefined, outputs)).toMatchObject(expected);
  });

  it("are not the initializers that old graphs list among them", async () => {
    const spec: GraphSpec = {
      inputs: { w: ["FLOAT", 2, 2], x: ["FLOAT", "b", 4, 8, 8], t: ["FLOAT"] },
      outputs: IMAGE,
      initializers: { w: { dims: [2, 2], data: waves(4) } },
    };
    expect(inferRoles(await open(spec)).others).toEqual([]);
  });

  it("come with what they were found by", async () => {
    const { evidence } = await rolesOf(
      { x: ["FLOAT", "b", 4, 8, 8], k: ["INT64", "b"], z: ["INT64", "b"] },
      { time: "k" },
    );
    expect(evidence).toEqual([
      'prediction: "noise_pred" (float [batch,4,8,8]), the only output that it can be',
      'time: "k" (int64 [b]), by --time-input',
      'sample: "x" (float [b,4,8,8]), by its name',
    ]);
  });
});

describe("roles that are given", () => {
  const inputs: ValueSpecs = {
    sample: ["FLOAT", "b", 4, 8, 8],
    latents: ["FLOAT", "b", 4, 8, 8],
    t: ["INT64", "b"],
    labels: ["INT64", "b"],
    extra: ["FLOAT", "b", 5],
  };

  it("win over names", async () => {
    const given: RoleNames = { sample: "latents", time: "labels", classLabels: "t", encoderStates: "extra" };
    expect(await rolesOf(inputs, given)).toMatchObject({ ...given, others: ["sample"] });
    const outputs: ValueSpecs = { a: ["FLOAT", "b", 4], prediction: ["FLOAT", "b", 4] };
    expect(await rolesOf(inputs, { ...given, prediction: "a" }, outputs)).toMatchObject({ prediction: "a" });
  });

  it("must be the graph's, and one each", async () => {
    expect(await refusalOf(inputs, { sample: "simple" })).toMatch(
      /^E_GRAPH: ".*" has no input "simple"; it has: "sample" \(float \[b,4,8,8\]\), .* \| give one of them to --sample-input$/,
    );
    expect(await refusalOf(inputs, { sample: "latents", prediction: "latents" })).toMatch(/has no output "latents"/);
    expect(await refusalOf(inputs, { sample: "t", time: "t" })).toMatch(
      /^E_CONFLICT: --sample-input and --time-input both name input "t"/,
    );
  });
});

describe("what is not evident is refused with the candidates and the flag that settles it", () => {
  const x = ["FLOAT", "b", 4, 8, 8] as const;
  const n = ["INT64", "b"] as const;
  it.each<[string, ValueSpecs, ValueSpecs, RegExp]>([
    [
      "two samples",
      { sample: x, latents: x, t: n },
      IMAGE,
      /several could be it: "sample" .*, "latents" .*--sample-input/,
    ],
    ["two times", { x, t: n, sigma: ["FLOAT"] }, IMAGE, /several could be it: "t" .*, "sigma" .*--time-input/],
    ["two numbers without a name", { x, a: n, b: n }, IMAGE, /the timestep or sigma .*: "a" .*, "b" .*--time-input/],
    ["no time at all", { x }, IMAGE, /none is known by its name or shape: "x" .*--time-input/],
    ["no sample at all", { ids: ["INT64", "b", "n"], t: n }, IMAGE, /none is known .*: "ids" .*, "t" .*--sample-input/],
    ["two labels", { x, t: n, y: n, class_labels: n }, IMAGE, /"y" .*, "class_labels" .*--class-input/],
    [
      "two encoders",
      { x, t: n, context: ["FLOAT", "b", "n", 8], prompt_embeds: ["FLOAT", "b", "n", 8] },
      IMAGE,
      /"context" .*, "prompt_embeds" .*--encoder-input/,
    ],
    [
      "two predictions",
      { x, t: n },
      { a: x, b: x },
      /which output .* several could be it: "a" .*, "b" .*--prediction-output/,
    ],
    ["no prediction", { x, t: n }, { code: ["INT64", "b"] }, /which output .* none is known .*--prediction-output/],
  ])("%s", async (_title, inputs, outputs, message) => {
    const refusal = await refusalOf(inputs, undefined, outputs);
    expect(refusal).toMatch(/^E_GRAPH/);
    expect(refusal).toMatch(message);
  });
});
