import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArrowQuantError } from "../../dist/errors.js";
import { planComponents } from "../../dist/plan/component.js";
import { fitPlanFile } from "../../dist/plan/fit-plan-file.js";
import type { ComponentPlan } from "../../dist/plan/plan.js";
import { type PlanHead, parsePlanFile, writePlanFile } from "../../dist/plan/plan-file.js";
import type { Component } from "../../dist/tensor/info.js";
import { component, configOf, tensor } from "./components.js";

const head: PlanHead = { model: "m", target: null, settings: {}, fingerprints: {}, figures: [] };

async function planOf(part: Component, flags: Record<string, unknown> = {}): Promise<ComponentPlan> {
  const config = await configOf({ modality: "image", ...flags });
  const components = [part];
  return planComponents({ components, pipelineClassName: null, config, calibration: null })[0] as ComponentPlan;
}

function refusal(work: () => unknown): ArrowQuantError {
  try {
    work();
  } catch (thrown) {
    if (thrown instanceof ArrowQuantError) return thrown;
    throw thrown;
  }
  throw new Error("not refused");
}

const parts = component([
  tensor("blocks.0.attn.to_q.weight", { shape: [64, 128] }),
  tensor("blocks.0.attn.to_q.bias", { shape: [64] }),
  tensor("blocks.0.ff.weight", { shape: [32, 64] }),
]);
const text = writePlanFile([await planOf(parts, { bit_width: 3 })], head);

describe("a written plan", () => {
  it("is read as the same specs, whatever names, widths and storage", async () => {
    const specs = fc.record({
      bits: fc.constantFrom(2, 3, 4, 5, 6, 8, "none"),
      groupSize: fc.constantFrom(16, 48, 128, 1000),
      method: fc.constantFrom("rtn", "hqq", "mse"),
      scaleBits: fc.constantFrom(null, 2, 6, 8),
      zeroPointBits: fc.constantFrom(null, 3, 6),
    });
    const layers = fc.uniqueArray(fc.tuple(fc.string({ unit: "grapheme", minLength: 1 }), specs), {
      selector: ([name]) => name,
      minLength: 1,
      maxLength: 8,
    });
    await fc.assert(
      fc.asyncProperty(layers, async (given) => {
        const tensors = given.map(([name]) => tensor(name, { shape: [4, 2000] }));
        const plan = await planOf(component(tensors), { skip_sensitive_layers: false });
        const changed: ComponentPlan = {
          ...plan,
          layers: plan.layers.map((layer, index) => {
            const { bits, ...storage } = (given[index] as (typeof given)[number])[1];
            if (bits === "none") return { ...layer, spec: null };
            const superGroupSize =
              storage.scaleBits === null ? null : Math.floor(1024 / storage.groupSize) * storage.groupSize;
            return { ...layer, spec: { ...plan.baseSpec, ...storage, superGroupSize, bits } as typeof layer.spec };
          }),
        };
        const [read] = parsePlanFile(writePlanFile([changed], head), "p.yaml").components;
        expect(read?.layers.map(({ name, spec }) => [name, spec])).toEqual(
          changed.layers.map(({ tensor: { name }, spec }) => [name, spec]),
        );
      }),
      { numRuns: 150 },
    );
  });

  it("settles the plan that it was written of, tensors that are never quantized left out", async () => {
    const config = await configOf({ modality: "image" });
    const settled = fitPlanFile(parsePlanFile(text, "p.yaml"), [parts], null);
    const input = { components: [parts], pipelineClassName: null, config, calibration: null };
    const [plan] = planComponents({ ...input, settled });
    expect(plan?.layers.map(({ spec }) => spec?.bits ?? null)).toEqual([3, null, 3]);
    expect(plan?.layers[0]).toMatchObject({ pinned: true, candidates: [], reason: "plan file p.yaml:16:9" });
    expect(text).not.toContain("bias");
  });
});

describe("a plan that does not fit", () => {
  it.each([
    ["missing", /\n.*ff\.weight.*/, "", /1 of 2 tensors of "\w+" are missing: "blocks.0.ff.weight"/],
    ["extra", "ff.weight", "fff.weight", /p\.yaml:17:9: "blocks.0.fff.weight" is none of the 2 tensors/],
    ["another shape", "[32,64]", "[64,32]", /p\.yaml:17:9: .* is \[64, 32\], the model has \[32, 64\]/],
    ["without calibration", "method: hqq", "method: gptq", /p\.yaml:16:9: .* needs calibration, and there is none/],
    ["another component", /component: .*/, 'component: "vae"', /has no component "vae"/],
  ])("is refused: %s", (_, from, to, message) => {
    const error = refusal(() => fitPlanFile(parsePlanFile(text.replace(from, to), "p.yaml"), [parts], null));
    expect(error.code).toBe("E_PLAN");
    expect(error.exitCode).toBe(2);
    expect(error.message).toMatch(message);
  });

  it.each([
    ["an impossible width", "bits: 3", "bits: 7", /p\.yaml:16:\d+: .*bits: expected 2, 3, 4, 5, 6, 8 or none/],
    ["a misspelt key", "method:", "methd:", /p\.yaml:16:\d+: .*methd/],
    ["no group size", "group_size: 128, ", "", /"blocks.0.attn.to_q.weight": group_size is missing/],
    ["r2q of 3 bits", "method: hqq", "method: r2q", /r2q is a method of 2 bits, not 3/],
    ["symmetric hqq", "method: hqq", "method: hqq, symmetric: true", /hqq has no symmetric codes/],
    [
      "super-groups of parts",
      "method: hqq",
      "method: hqq, super_group_size: 200",
      /200 is no multiple of group_size 128/,
    ],
    ["a tensor twice", "ff.weight", "attn.to_q.weight", /p\.yaml:17:9: "blocks.0.attn.to_q.weight" stands twice/],
    ["another version", "arrowquant_plan: 1", "arrowquant_plan: 2", /p\.yaml:\d+:\d+: arrowquant_plan/],
    ["no components", /components:[\s\S]*/, "", /components/],
  ])("is refused by its text: %s", (_, from, to, message) => {
    const error = refusal(() => parsePlanFile(text.replace(from, to), "p.yaml"));
    expect(error.code).toBe("E_PLAN");
    expect(error.message).toMatch(message);
  });

  it("is never anything but E_PLAN, whatever the text", () => {
    const cut = fc.tuple(fc.nat(text.length), fc.nat(text.length), fc.string({ unit: "binary", maxLength: 6 }));
    fc.assert(
      fc.property(cut, ([from, to, noise]) => {
        const broken = text.slice(0, from) + noise + text.slice(Math.max(from, to));
        try {
          fitPlanFile(parsePlanFile(broken, "p.yaml"), [parts], null);
        } catch (thrown) {
          expect((thrown as ArrowQuantError).code).toBe("E_PLAN");
        }
      }),
      { numRuns: 400 },
    );
  });
});
