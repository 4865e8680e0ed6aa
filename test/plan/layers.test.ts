import { describe, expect, it } from "vitest";
import type { ArrowQuantError } from "../../dist/errors.js";
import { planComponent, planComponents } from "../../dist/plan/component.js";
import type { ComponentPlan, LayerPlan } from "../../dist/plan/plan.js";
import type { TensorInfo } from "../../dist/tensor/info.js";
import { component, configOf, tensor } from "./components.js";

/** Under the rules of the DiT, whose embedder is kept. */
const NAMES = [
  "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight",
  "transformer_blocks.0.attn1.to_q.weight",
  "transformer_blocks.0.attn1.to_k.weight",
  "transformer_blocks.0.ff.net.2.weight",
] as const;
const [EMBEDDER, TO_Q, TO_K, FF] = NAMES;

async function plan(
  flags: Record<string, unknown>,
  tensors: readonly (string | TensorInfo)[] = NAMES,
): Promise<ComponentPlan> {
  const config = await configOf(flags);
  return planComponent({ component: component(tensors), pipelineClassName: null, config, calibration: null });
}

async function layersOf(flags: Record<string, unknown>): Promise<Record<string, LayerPlan>> {
  const { layers } = await plan(flags);
  return Object.fromEntries(layers.map((layer) => [layer.tensor.name, layer]));
}

async function refusal(
  flags: Record<string, unknown>,
  tensors?: readonly (string | TensorInfo)[],
): Promise<ArrowQuantError> {
  return plan(flags, tensors).then(
    () => expect.unreachable(),
    (error: ArrowQuantError) => error,
  );
}

describe("what is always kept", () => {
  it.each([
    [tensor("b.bias", { shape: [64] }), "always kept: fewer than 2 dimensions"],
    [tensor("b.scalar", { shape: [] }), "always kept: fewer than 2 dimensions"],
    [tensor("b.ids", { dtype: "I64" }), "always kept: integer type I64"],
    [tensor("b.mask", { dtype: "BOOL" }), "always kept: boolean type BOOL"],
    [tensor("b.freqs", { dtype: "C64" }), "always kept: complex type C64"],
    [tensor("b.empty", { shape: [0, 64] }), "always kept: no elements"],
  ])("$name", async (kept, reason) => {
    // Even where a width is pinned to it.
    const { layers } = await plan({ modality: "image", layer_bit_widths: ["a|b=8"] }, ["a.weight", kept]);
    expect(layers[1]).toMatchObject({ spec: null, reason, storedDtype: kept.dtype, pinned: false });
    expect(layers[0]?.spec?.bits).toBe(8);
  });

  it.each(["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"] as const)("not %s", async (dtype) => {
    const { layers } = await plan({ modality: "image" }, [tensor("a.weight", { dtype })]);
    expect(layers[0]?.spec).not.toBeNull();
  });
});

describe("the order of the rules", () => {
  it("without any: the keep table, then quantized", async () => {
    const layers = await layersOf({});
    expect(layers[EMBEDDER]).toMatchObject({
      spec: null,
      reason: 'keep dit "\\.class_embedder\\." (label embedder)',
    });
    expect(layers[TO_Q]).toMatchObject({ spec: { bits: 4 }, reason: "quantized by default", pinned: false });
  });

  it("a width stands over everything, the first that matches over the rest", async () => {
    const layers = await layersOf({
      layer_bit_widths: { "attn1\\.to_q": 8, attn1: "none", class_embedder: 2 },
      exclude: ["to_q", "class_embedder", "to_k"],
      include: ["ff"],
    });
    expect(layers[TO_Q]).toMatchObject({
      spec: { bits: 8 },
      reason: 'layer_bit_widths "attn1\\.to_q": 8 bits',
      pinned: true,
    });
    expect(layers[TO_K]).toMatchObject({
      spec: null,
      reason: 'layer_bit_widths "attn1": none',
      pinned: true,
    });
    expect(layers[EMBEDDER]).toMatchObject({ spec: { bits: 2 }, pinned: true });
    expect(layers[FF]?.reason).toBe('include "ff"');
  });

  it("exclude stands over include, include over what is sensitive", async () => {
    const layers = await layersOf({
      exclude: ["to_q"],
      include: ["attn1", "class_embedder"],
      sensitive_layer_names: [FF, TO_Q],
    });
    expect(layers[TO_Q]?.reason).toBe('exclude "to_q"');
    expect(layers[TO_K]?.reason).toBe('include "attn1"');
    expect(layers[FF]).toMatchObject({ spec: null, reason: "include: no pattern matches" });
  });

  it("include does not un-keep what the table keeps", async () => {
    const flags = { include: ["class_embedder", "ff"] };
    expect((await layersOf(flags))[EMBEDDER]).toMatchObject({
      spec: null,
      reason: expect.stringMatching(/^keep dit/),
    });
    const bold = await layersOf({ ...flags, skip_sensitive_layers: false });
    expect(bold[EMBEDDER]).toMatchObject({ spec: { bits: 4 }, reason: 'include "class_embedder"' });
  });

  it("sensitive names are of tensors or layers, and hold without the table", async () => {
    const layers = await layersOf({
      skip_sensitive_layers: false,
      sensitive_layer_names: [TO_Q, TO_K.replace(".weight", "")],
      sensitive_layer_patterns: ["ff\\.net"],
    });
    expect(layers[EMBEDDER]?.spec).not.toBeNull();
    expect(layers[TO_Q]?.reason).toBe(`sensitive_layer_names "${TO_Q}"`);
    expect(layers[TO_K]).toMatchObject({
      spec: null,
      reason: `sensitive_layer_names "${TO_K.replace(".weight", "")}"`,
    });
    expect(layers[FF]).toMatchObject({ spec: null, reason: 'sensitive_layer_patterns "ff\\.net"' });
  }, 10_000);

  it("a width that an earlier pattern takes all from is a warning", async () => {
    const found = await plan({ layer_bit_widths: { attn1: 8, to_q: 2 } });
    expect(found.warnings).toEqual([
      'layer_bit_widths "to_q" matches 1 tensors and decides about none: ' +
        "an earlier pattern does, or they are always kept",
    ]);
  });
});

describe("patterns that do nothing", () => {
  it.each([
    [{ layer_bit_widths: { nowhere: 4 } }, "layer_bit_widths (flag --layer-bits)"],
    [{ exclude: ["to_q", "nowhere"] }, "exclude (flag --exclude)"],
    [{ include: ["attn1", "nowhere"] }, "include (flag --include)"],
    [{ sensitive_layer_patterns: ["nowhere"] }, "sensitive_layer_patterns (flag --sensitive-layer-patterns)"],
  ])("%j is refused", async (flags, setting) => {
    const error = await refusal(flags);
    expect(error).toMatchObject({
      code: "E_PATTERN",
      exitCode: 2,
      hint: `tensor names look like "${EMBEDDER}"`,
    });
    expect(error.message).toBe(`${setting}: "nowhere" matches none of 4 tensors`);
  });

  it("a name that is none of the tensors gets the likely one", async () => {
    const error = await refusal({ sensitive_layer_names: ["transformer_blocks.0.attn1.to_p"] });
    expect(error.code).toBe("E_PATTERN");
    expect(error.hint).toMatch(/did you mean "transformer_blocks\.0\.attn1\.to_[qk]"\?/);
  });

  it("a pattern that is no regular expression is refused before any tensor is seen", async () => {
    const error = await refusal({ exclude: ["a("] }, [TO_Q]);
    expect(error.message).toMatch(/^exclude \(flag --exclude\): "a\(" is not a regular expression: /);
  });

  it("have to match in one component, not in all", async () => {
    const config = await configOf({ modality: "image", exclude: ["^decoder"], include: ["to_q", "decoder"] });
    const input = { pipelineClassName: null, config, calibration: null };
    const transformer = component(NAMES, { name: "transformer" });
    const vae = component(["decoder.a.weight"], { name: "vae" });
    const plans = planComponents({ ...input, components: [transformer, vae] });
    expect(plans.map(({ component: name }) => name)).toEqual(["transformer", "vae"]);
    expect(plans[1]?.layers[0]).toMatchObject({ spec: null, reason: 'exclude "^decoder"' });
    expect(() => planComponent({ ...input, component: transformer })).toThrow(/matches none of 4 tensors/);
  });
});

describe("nothing to quantize", () => {
  it("says what keeps the tensors", async () => {
    const error = await refusal({ exclude: ["attn1", "ff"] });
    expect(error).toMatchObject({ code: "E_NOTHING", exitCode: 3 });
    expect(error.message).toBe(
      'nothing to quantize in "model": all 4 tensors are kept (2 exclude "attn1"; ' +
        '1 keep dit "\\.class_embedder\\." (label embedder); 1 exclude "ff")',
    );
    expect(error.details["reasons"]).toMatchObject({ 'exclude "attn1"': 2 });
  });

  it("or that there are none", async () => {
    expect((await refusal({ modality: "image" }, [])).message).toBe('nothing to quantize in "model": no tensors');
  });
});

describe("a source scale", () => {
  it("makes a kept layer F32", async () => {
    const location = { file: 0, byteOffset: 0, byteLength: 4 };
    const sourceScale = { tensorName: "x", dtype: "F32", per: "tensor", location } as const;
    const { layers } = await plan({ modality: "image", exclude: ["^a"] }, [
      tensor("a.weight", { dtype: "F8_E4M3", sourceScale }),
      tensor("a2.weight", { dtype: "F8_E4M3" }),
      tensor("b.weight", { dtype: "F8_E4M3", sourceScale }),
    ]);
    expect(layers.map(({ storedDtype }) => storedDtype)).toEqual(["F32", "F8_E4M3", "F32"]);
  });
});
