import { describe, expect, it } from "vitest";
import type { ResolvedConfig } from "../../dist/config/config.js";
import { resolveConfig } from "../../dist/config/resolve.js";
import type { ArrowQuantError } from "../../dist/errors.js";
import type { Calibration } from "../../dist/plan/calibration.js";
import { MODALITIES, type Modality } from "../../dist/plan/plan.js";
import { chooseStrategy, type Strategy, treatLayer } from "../../dist/plan/strategy.js";
import { configOf } from "./components.js";

/** Statistics of layers a (everything), b (no Hessian, no held-back rows); nothing of c. */
const CALIBRATION: Calibration = {
  label: "sampling, 128 samples",
  fingerprint: "ab".repeat(32),
  component: "model",
  layerNames: new Set(["a", "b"]),
  hessianNames: new Set(["a"]),
  heldBackNames: new Set(["a"]),
  timeBinCount: 8,
};
const calibrated = async (
  modality: Modality,
  flags: Record<string, unknown> = {},
  calibration: Calibration = CALIBRATION,
): Promise<Strategy> => chooseStrategy(modality, await configOf({ calibration: "sampling", ...flags }), calibration);

const choose = async (modality: Modality, flags: Record<string, unknown> = {}): Promise<Strategy> =>
  chooseStrategy(modality, await configOf(flags), null);
const ruleOf = (strategy: Strategy, what: string): string | undefined =>
  strategy.decisions.find((decision) => decision.what === what)?.rule;

async function refusal(modality: Modality, flags: Record<string, unknown>): Promise<ArrowQuantError> {
  return choose(modality, flags).then(
    () => expect.unreachable(),
    (error: ArrowQuantError) => error,
  );
}

describe("the method", () => {
  it.each<[Modality, number, string, string]>([
    ["text", 2, "r2q", "strategy text: r2q at 2 bits"],
    ["code", 2, "r2q", "strategy code: r2q at 2 bits"],
    ["text", 4, "hqq", "strategy text: hqq at 4 bits"],
    ["code", 8, "hqq", "strategy code: hqq at 8 bits"],
    ["image", 2, "hqq", "strategy image: hqq at 2 bits, no calibration"],
    ["audio", 4, "hqq", "strategy audio: hqq at 4 bits, no calibration"],
    ["video", 8, "hqq", "strategy video: hqq at 8 bits, no calibration"],
  ])("of %s at %d bits is %s", async (modality, bits, method, rule) => {
    const strategy = await choose(modality, { bit_width: bits });
    expect(strategy.baseSpec).toMatchObject({ bits, method });
    expect(ruleOf(strategy, "method")).toBe(rule);
  });

  it("by hand stands in every modality", async () => {
    for (const modality of MODALITIES) {
      for (const method of ["rtn", "hqq", "mse"]) {
        const strategy = await choose(modality, { method, bit_width: 2 });
        expect(strategy.baseSpec).toMatchObject({ method, bits: 2 });
        expect(ruleOf(strategy, "method")).toBe("flag --method");
      }
    }
  });

  it("gives way to what was set by hand", async () => {
    const symmetric = await choose("image", { symmetric: true });
    expect(symmetric.baseSpec).toMatchObject({ method: "rtn", symmetric: true });
    expect(ruleOf(symmetric, "method")).toBe("strategy image: rtn, as hqq has no symmetric codes (flag --symmetric)");
    const symmetricText = await choose("text", { symmetric: true, bit_width: 2 });
    expect(symmetricText.baseSpec.method).toBe("rtn");
    const plainScales = await choose("text", { bit_width: 2, scale_bits: "none" });
    expect(plainScales.baseSpec).toMatchObject({ method: "hqq", scaleBits: null, superGroupSize: null });
    expect(ruleOf(plainScales, "method")).toBe("strategy text: hqq, as r2q needs coded scales (flag --scale-bits)");
  });

  it("r2q by hand takes a profile's width with it", async () => {
    const strategy = await choose("image", { method: "r2q" });
    expect(strategy.baseSpec).toMatchObject({ method: "r2q", bits: 2 });
    expect(ruleOf(strategy, "bit_width")).toBe("r2q is a method of 2 bits (flag --method)");
  });

  it.each(["gptq", "auto"])("%s needs calibration", async (method) => {
    const error = await refusal("image", { method });
    expect(error).toMatchObject({ code: "E_CONFLICT", exitCode: 2 });
    expect(error.message).toBe(`method ${method} (flag --method) needs calibration, and there is none`);
  });
});

describe("a pinned width", () => {
  const pin = async (modality: Modality, bits: 2 | 4 | 8, flags: Record<string, unknown>) => {
    const config = await configOf(flags);
    return treatLayer(chooseStrategy(modality, config, null), "a", bits).spec;
  };
  it("takes the method of its width", async () => {
    expect(await pin("text", 4, { bit_width: 2 })).toMatchObject({ bits: 4, method: "hqq" });
    expect(await pin("text", 2, { bit_width: 8 })).toMatchObject({ bits: 2, method: "r2q" });
    expect(await pin("image", 8, { method: "r2q" })).toMatchObject({ bits: 8, method: "hqq" });
    expect(await pin("image", 8, { method: "mse" })).toMatchObject({ bits: 8, method: "mse" });
    expect(await pin("text", 2, { bit_width: 8, symmetric: true })).toMatchObject({ method: "rtn" });
  });
});

describe("storage", () => {
  it.each([
    [48, 1008],
    [17, 1020],
    [600, 600],
    [1000, 1000],
    [1024, 1024],
    [256, 1024],
  ])("group size %d by hand makes super-groups of %d", async (group, superGroup) => {
    const { baseSpec, ...strategy } = await choose("image", { group_size: group });
    expect(baseSpec).toMatchObject({ groupSize: group, superGroupSize: superGroup });
    expect(superGroup % group).toBe(0);
    if (1024 % group !== 0) {
      expect(ruleOf({ baseSpec, ...strategy }, "super_group_size")).toBe(
        `largest multiple of group_size ${group} up to 1024 (profiles/local.yaml)`,
      );
    }
  });

  it.each([
    [96, 128, 96],
    [1000, 128, 125],
    [192, 128, 96],
    [512, 128, 128],
  ])("super-groups of %d by hand make groups of %d into %d", async (superGroup, _group, group) => {
    const strategy = await choose("image", { super_group_size: superGroup });
    expect(strategy.baseSpec).toMatchObject({ groupSize: group, superGroupSize: superGroup });
    expect(superGroup % group).toBe(0);
  });

  it("a super-group that nothing divides is refused", async () => {
    const error = await refusal("image", { super_group_size: 1009 });
    expect(error.code).toBe("E_CONFLICT");
    expect(error.message).toMatch(
      /super_group_size 1009 \(flag --super-group-size\).*group_size 128 \(profiles\/local.yaml\)/,
    );
  });

  it("float32 scales have no super-groups", async () => {
    const { baseSpec, decisions } = await choose("image", { scale_bits: "none", zero_point_bits: "none" });
    expect(baseSpec).toMatchObject({ scaleBits: null, zeroPointBits: null, superGroupSize: null });
    expect(decisions.map(({ what }) => what)).not.toContain("super_group_size");
  });
});

describe("activations", () => {
  const read = async (modality: Modality, sources: Parameters<typeof resolveConfig>[0]) => {
    const config: ResolvedConfig = await resolveConfig(sources);
    const { decisions, notApplied } = chooseStrategy(modality, config, null);
    const values = Object.fromEntries(decisions.map(({ what, value }) => [what, value]));
    return {
      timeAware: values["enable_time_aware"],
      spatial: values["enable_spatial"],
      notApplied: notApplied.map(({ setting }) => setting),
      decisions,
    };
  };

  it.each<[Modality, string, string]>([
    ["text", "on", "off"],
    ["code", "on", "off"],
    ["image", "off", "on"],
    ["audio", "off", "on"],
    ["video", "off", "on"],
  ])("of %s: time-aware %s, spatial %s, and what is on is not applied", async (modality, timeAware, spatial) => {
    const found = await read(modality, {});
    expect(found).toMatchObject({ timeAware, spatial });
    expect(found.notApplied).toEqual([timeAware === "on" ? "enable_time_aware" : "enable_spatial"]);
  });

  it("profile edge turns spatial off for all, by hand it comes back", async () => {
    const edge = { profile: "edge" };
    expect((await read("image", { flags: edge })).spatial).toBe("off");
    expect((await read("image", { flags: { ...edge, enable_spatial: true } })).spatial).toBe("on");
    expect((await read("image", { flags: { ...edge, enable_spatial: null } })).spatial).toBe("on");
    expect((await read("text", { flags: { enable_spatial: true } })).spatial).toBe("on");
    expect((await read("image", { flags: { enable_spatial: false } })).notApplied).toEqual([]);
  });

  it("says what a hand set and nothing uses", async () => {
    const { notApplied } = await choose("image", {
      enable_time_aware: true,
      num_time_groups: 4,
      calibration_samples: 8,
      enable_streaming: false,
      weighting: "none",
      enable_spatial: false,
    });
    expect(notApplied).toEqual([
      { setting: "enable_time_aware", reason: "needs calibration" },
      { setting: "num_time_groups", reason: "needs calibration" },
      { setting: "calibration_samples", reason: "needs calibration" },
      { setting: "weighting", reason: "method hqq weights nothing" },
      { setting: "enable_streaming", reason: "tensors are always streamed" },
    ]);
    expect(
      (await choose("text", { bit_width: 2, zero_point_bits: 4, super_group_size: 512 })).notApplied,
    ).toContainEqual({
      setting: "zero_point_bits",
      reason: "method r2q has no zero points",
    });
    expect((await choose("image", { method: "mse", weighting: "none", preserve_gain: false })).notApplied).toEqual([
      { setting: "enable_spatial", reason: "needs calibration" },
    ]);
  });
});

describe("with calibration", () => {
  it.each<[Modality, number, string, string]>([
    ["image", 2, "gptq", "strategy image: gptq with calibration"],
    ["audio", 4, "gptq", "strategy audio: gptq with calibration"],
    ["video", 8, "gptq", "strategy video: gptq with calibration"],
    ["text", 2, "r2q", "strategy text: r2q at 2 bits"],
    ["code", 4, "hqq", "strategy code: hqq at 4 bits"],
  ])("the method of %s at %d bits is %s", async (modality, bits, method, rule) => {
    const strategy = await calibrated(modality, { bit_width: bits });
    expect(strategy.baseSpec).toMatchObject({ bits, method });
    expect(ruleOf(strategy, "method")).toBe(rule);
    expect(treatLayer(strategy, "a", null)).toMatchObject({ spec: { bits, method }, calibrated: true, note: null });
  });

  it("a layer without statistics, or without a Hessian, does without, and says so", async () => {
    for (const method of [null, "gptq"]) {
      const strategy = await calibrated("image", { method, activation_bits: 8 });
      expect(treatLayer(strategy, "a", null)).toMatchObject({
        spec: { method: "gptq" },
        spatial: { alphas: [0, 0.25, 0.5, 0.75, 1] },
        activations: { bits: 8, mode: "time" },
        note: null,
      });
      expect(treatLayer(strategy, "b", null)).toMatchObject({
        spec: { method: "hqq" },
        calibrated: true,
        spatial: null,
        activations: { bits: 8 },
        note: "no Hessian: hqq",
      });
      expect(treatLayer(strategy, "c", null)).toMatchObject({
        spec: { method: "hqq" },
        calibrated: false,
        spatial: null,
        activations: null,
        note: "no statistics: hqq, weights only",
      });
    }
    const symmetric = await calibrated("image", { symmetric: true });
    expect(["a", "b", "c"].map((name) => treatLayer(symmetric, name, 2).spec)).toMatchObject([
      { method: "gptq", bits: 2, symmetric: true },
      { method: "rtn" },
      { method: "rtn" },
    ]);
  });

  it("auto lists what each layer can choose from", async () => {
    const methodsOf = async (flags: Record<string, unknown>, name: string, bits: 2 | 4 | 8 | null = null) => {
      const treatment = treatLayer(await calibrated("image", { method: "auto", ...flags }), name, bits);
      if (treatment.candidates.length > 0) expect(treatment.candidates[0]).toEqual(treatment.spec);
      return treatment.candidates.map(({ method }) => method);
    };
    expect(await methodsOf({}, "a")).toEqual(["gptq", "hqq", "mse", "rtn"]);
    expect(await methodsOf({}, "a", 2)).toEqual(["gptq", "hqq", "mse", "rtn", "r2q"]);
    expect(await methodsOf({ scale_bits: "none" }, "a", 2)).toEqual(["gptq", "hqq", "mse", "rtn"]);
    expect(await methodsOf({ symmetric: true }, "a", 2)).toEqual(["gptq", "mse", "rtn"]);
    expect(await methodsOf({}, "b")).toEqual([]);
    expect(await methodsOf({}, "c")).toEqual([]);
    const strategy = await calibrated("image", { method: "auto" });
    expect(strategy.decisions).toContainEqual({
      what: "method",
      value: "auto: gptq, hqq, mse, rtn",
      rule: "flag --method",
    });
    for (const what of ["weighting", "gptq_damp"]) expect(ruleOf(strategy, what)).toBe("default");
  });

  const activationsOf = async (
    modality: Modality,
    flags: Record<string, unknown>,
    calibration = CALIBRATION,
  ): Promise<[string, Strategy["activations"], Strategy]> => {
    const strategy = await calibrated(modality, flags, calibration);
    const on = strategy.decisions.find(({ what }) => what === "enable_time_aware")?.value as string;
    return [on, strategy.activations, strategy];
  };

  it.each<[Modality, Record<string, unknown>, string, Record<string, unknown> | null]>([
    ["image", {}, "off", null],
    ["text", {}, "on", { bits: 8, mode: "time", groups: "optimal", groupCount: 8, range: "minmax" }],
    ["text", { activation_bits: 16 }, "off", null],
    ["image", { activation_bits: 8 }, "on", { bits: 8, mode: "time" }],
    ["image", { activation_bits: 4, num_time_groups: 3 }, "on", { bits: 4, groupCount: 3, range: "mse" }],
    ["image", { activation_bits: 8, enable_time_aware: false }, "off", { mode: "static", groupCount: 1 }],
    ["image", { activation_mode: "static" }, "off", { bits: 8, mode: "static", groups: "uniform" }],
    ["text", { activation_mode: "dynamic", activation_bits: 4 }, "off", { bits: 4, mode: "dynamic", groupCount: 1 }],
    ["image", { enable_time_aware: true }, "on", { bits: 8, mode: "time" }],
    [
      "image",
      { activation_bits: 6, activation_range: "percentile", activation_percentile: 99 },
      "on",
      { range: "percentile", percentile: 99 },
    ],
  ])("%s, %j: time-aware %s, activations %j", async (modality, flags, on, expected) => {
    const [found, activations] = await activationsOf(modality, flags);
    expect(found).toBe(on);
    if (expected === null) expect(activations).toBeNull();
    else expect(activations).toMatchObject(expected);
  });

  it("smooths boundaries and transitions where asked, and only over time", async () => {
    const flags = {
      "thermodynamic.boundary_smoothing.window": 2,
      "thermodynamic.boundary_smoothing.interpolation": "cubic",
      "thermodynamic.transition_optimization.weight": 5,
    };
    const [, activations, strategy] = await activationsOf("image", { ...flags, activation_bits: 8 });
    expect(activations).toMatchObject({
      boundarySmoothing: { window: 2, interpolation: "cubic" },
      transitionWeight: 5,
      smoothnessThreshold: 0.3,
    });
    expect(strategy.notApplied).toEqual([]);
    const [, still, without] = await activationsOf("image", { ...flags, activation_mode: "static" });
    expect(still).toMatchObject({ boundarySmoothing: null, transitionWeight: null });
    expect(without.notApplied).toEqual(
      Object.keys(flags).map((setting) => ({ setting, reason: "mode static has no timestep groups" })),
    );
    const enabled = { "thermodynamic.transition_optimization.enabled": true, activation_bits: 8 };
    expect((await activationsOf("image", enabled))[1]?.transitionWeight).toBe(0.1);
  });

  it("says what statistics without ranges, Hessians and samples (an imatrix) leave undone", async () => {
    const none: ReadonlySet<string> = new Set();
    const imatrix = { ...CALIBRATION, label: "imatrix", hessianNames: none, heldBackNames: none, timeBinCount: 0 };
    const [, activations, strategy] = await activationsOf("image", { activation_bits: 8, num_time_groups: 4 }, imatrix);
    expect(activations).toBeNull();
    expect(strategy.baseSpec.method).toBe("hqq");
    expect(ruleOf(strategy, "method")).toBe("strategy image: hqq at 4 bits, no Hessian");
    expect(strategy.notApplied).toEqual([
      { setting: "enable_time_aware", reason: "imatrix holds no ranges of activations" },
      { setting: "enable_spatial", reason: "imatrix holds no held-back samples" },
      { setting: "num_time_groups", reason: "activations are not quantized" },
    ]);
    expect(treatLayer(strategy, "a", null)).toMatchObject({ calibrated: true, note: null, activations: null });
  });

  it("dynamic activations need none, static ones do", async () => {
    const dynamic = await choose("image", { activation_mode: "dynamic", activation_bits: 8 });
    expect(treatLayer(dynamic, "a", null).activations).toMatchObject({ mode: "dynamic", bits: 8 });
    const still = await choose("image", { activation_mode: "static", activation_bits: 8, enable_spatial: false });
    expect(still.activations).toBeNull();
    expect(still.notApplied).toEqual([{ setting: "activation_bits", reason: "needs calibration" }]);
  });

  it("equalization tries the given α and 0", async () => {
    expect((await calibrated("image", { spatial_alpha: 0.4 })).spatial).toEqual({ alphas: [0, 0.4] });
    expect((await calibrated("image", { spatial_alpha: 0 })).spatial).toEqual({ alphas: [0] });
    expect((await calibrated("image", { enable_spatial: false })).spatial).toBeNull();
    expect((await calibrated("text")).spatial).toBeNull();
    expect((await choose("image", { spatial_alpha: 0.4 })).notApplied).toContainEqual({
      setting: "spatial_alpha",
      reason: "needs calibration",
    });
  });
});
