import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { describeOrigin, flagName, isExplicit, ORIGIN_SOURCES } from "../../dist/config/config.js";
import { ENVIRONMENT_VARIABLES } from "../../dist/config/environment.js";
import { type ConfigSources, resolveConfig } from "../../dist/config/resolve.js";
import { CONFIG_KEYS } from "../../dist/config/schema.js";
import { ArrowQuantError } from "../../dist/errors.js";

async function refusal(sources: ConfigSources): Promise<ArrowQuantError> {
  const thrown: unknown = await resolveConfig(sources).then(
    () => null,
    (error: unknown) => error,
  );
  if (!(thrown instanceof ArrowQuantError)) throw new Error(`not refused: ${String(thrown)}`);
  return thrown;
}

describe("profiles", () => {
  it.each([
    ["edge", 2, 5, 256, false, 0.65, 32],
    ["local", 4, 10, 128, true, 0.85, 128],
    ["cloud", 8, 20, 64, true, 0.95, 512],
  ])("%s holds what it promises", async (profile, bits, timeGroups, group, spatial, accuracy, samples) => {
    const { values, origins } = await resolveConfig({ flags: { profile } });
    expect(values).toMatchObject({
      profile,
      bit_width: bits,
      num_time_groups: timeGroups,
      group_size: group,
      enable_spatial: spatial,
      min_accuracy: accuracy,
      calibration_samples: samples,
      scale_bits: 6,
      zero_point_bits: 6,
      super_group_size: 1024,
    });
    expect(origins.bit_width).toEqual({ source: "profile", detail: `profiles/${profile}.yaml` });
    expect(origins.profile).toEqual({ source: "flag", detail: "--profile" });
  });

  it("defaults are those of profile local, so naming it changes no value", async () => {
    const [plain, named] = await Promise.all([resolveConfig(), resolveConfig({ flags: { profile: "local" } })]);
    expect(named.values).toEqual(plain.values);
    const { configSchema } = await import("../../dist/config/schema.js");
    expect(plain.values).toEqual(configSchema.parse({}));
  });

  it("can be chosen in the file, and by flag over the file", async () => {
    const file = { path: "quant.yaml", text: "profile: edge\n" };
    expect((await resolveConfig({ file })).values.bit_width).toBe(2);
    expect((await resolveConfig({ file, flags: { profile: "cloud" } })).values.bit_width).toBe(8);
  });
});

/** Keys that every source can give, each with the variable that gives it. */
const SHARED_KEYS = {
  bit_width: fc.constantFrom(2, 3, 4, 5, 6, 8),
  group_size: fc.constantFrom(16, 32, 64, 128, 256, 512, 1024),
  min_accuracy: fc.constantFrom(0.25, 0.5, 0.75, 1),
  num_time_groups: fc.integer({ min: 1, max: 1000 }),
  calibration_samples: fc.integer({ min: 1, max: 1_000_000 }),
  num_threads: fc.integer({ min: 1, max: 1024 }),
  fail_fast: fc.boolean(),
  enable_streaming: fc.boolean(),
  calibration: fc.constantFrom("sampling", "synthetic", "samples.jsonl"),
  calibration_steps: fc.integer({ min: 1, max: 1000 }),
  seed: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  activation_bits: fc.constantFrom(4, 5, 6, 7, 8),
  enable_mixed_precision: fc.constant(true),
  sensitivity: fc.constantFrom("weight", "output", "model", "entropy"),
  search: fc.constantFrom("none", "evolutionary"),
  "thermodynamic.validation.smoothness_threshold": fc.constantFrom(0, 0.25, 3),
  "thermodynamic.boundary_smoothing.window": fc.integer({ min: 0, max: 1000 }),
  "thermodynamic.boundary_smoothing.interpolation": fc.constantFrom("linear", "cubic", "sigmoid"),
  "thermodynamic.transition_optimization.weight": fc.constantFrom(0, 0.5, 100),
} as const;
type SharedKey = keyof typeof SHARED_KEYS;
const VARIABLES = Object.fromEntries(Object.entries(ENVIRONMENT_VARIABLES).map(([name, key]) => [key, name]));

describe("precedence", () => {
  it("covers every variable there is", () => {
    const targets = ["target_bpw", "target_model_size_mb", "max_error", "mean_group_size"];
    expect(Object.values(ENVIRONMENT_VARIABLES).sort()).toEqual([...Object.keys(SHARED_KEYS), ...targets].sort());
  });

  it("the strongest source that gives a key wins it, and its origin says so", async () => {
    const given = fc.record(
      Object.fromEntries(
        Object.entries(SHARED_KEYS).map(([key, value]) => [
          key,
          fc.record(
            { flag: value, object: value, environment: value, file: value } as Record<string, fc.Arbitrary<unknown>>,
            { requiredKeys: [] },
          ),
        ]),
      ),
    );
    const profile = fc.constantFrom("edge", "local", "cloud");
    await fc.assert(
      fc.asyncProperty(given, profile, fc.boolean(), async (keys, profileName, asText) => {
        const from = (source: string): [string, unknown][] =>
          Object.entries(keys)
            .filter(([, sources]) => Object.hasOwn(sources, source))
            .map(([key, sources]) => [key, sources[source]]);
        const fileEntries = from("file");
        const flags = from("flag").map(([key, value]): [string, unknown] => [key, asText ? String(value) : value]);
        const config = await resolveConfig({
          flags: Object.fromEntries([...flags, ["profile", profileName]]),
          config: Object.fromEntries(from("object")),
          environment: Object.fromEntries(
            from("environment").map(([key, value]) => [VARIABLES[key] as string, String(value)]),
          ),
          file: {
            path: "dir/q.yaml",
            text: fileEntries.map(([key, value]) => `${key}: ${value}\n`).join(""),
          },
        });
        const base = (await resolveConfig({ flags: { profile: profileName } })).values;
        for (const key of Object.keys(SHARED_KEYS) as SharedKey[]) {
          const sources = keys[key] as Record<string, unknown>;
          const winner = ORIGIN_SOURCES.find((source) => Object.hasOwn(sources, source));
          const origin = config.origins[key];
          if (winner === undefined) {
            expect(config.values[key]).toEqual(base[key]);
            expect(isExplicit(config, key)).toBe(false);
            continue;
          }
          expect(config.values[key]).toEqual(sources[winner]);
          expect(origin.source).toBe(winner);
          expect(isExplicit(config, key)).toBe(true);
          const line = fileEntries.findIndex(([name]) => name === key) + 1;
          const details: Record<string, string> = {
            flag: flagName(key, sources[winner]),
            object: `config.${key}`,
            environment: VARIABLES[key] as string,
            file: `dir/q.yaml:${line}`,
          };
          expect(origin.detail).toBe(details[winner]);
        }
      }),
      { numRuns: 150 },
    );
  });

  it("only keys that are given count", async () => {
    const config = await resolveConfig({
      flags: { bit_width: undefined },
      environment: { ARROW_QUANT_BIT_WIDTH: "" },
    });
    expect(config.origins.bit_width.source).toBe("profile");
  });

  it("names both sides of a pair of flags", async () => {
    const on = await resolveConfig({ flags: { enable_spatial: true, preserve_gain: true, method: "mse" } });
    const off = await resolveConfig({
      flags: { enable_spatial: false, preserve_gain: false, method: "mse" },
    });
    expect(describeOrigin(on.origins.enable_spatial)).toBe("flag --enable-spatial");
    expect(describeOrigin(off.origins.enable_spatial)).toBe("flag --disable-spatial");
    expect(describeOrigin(off.origins.preserve_gain)).toBe("flag --no-preserve-gain");
    expect(describeOrigin(on.origins.variant)).toBe("default");
  });

  it("calls an object what its owner calls it", async () => {
    const config = await resolveConfig({ config: { bit_width: 2 }, configLabel: "jobs.yaml job 3" });
    expect(config.origins.bit_width).toEqual({ source: "object", detail: "jobs.yaml job 3: bit_width" });
  });
});

describe("values as text", () => {
  it("are read by what the key takes", async () => {
    const { values } = await resolveConfig({
      flags: {
        scale_bits: "none",
        zero_point_bits: "8",
        symmetric: "false",
        variant: "16",
        memory: "1.5 GiB",
        components: "transformer,text_encoder",
        include: "to_q",
        exclude: ["a{1,2}", "b"],
        layer_bit_widths: ["x=y$=8", "norm1=none"],
        layer_min_bits: "attn=4",
        candidate_bits: "2, 8",
        candidate_group_sizes: "32",
        target_bpw: "2.5",
        "evolution.generations": "3",
      },
    });
    expect(values).toMatchObject({
      scale_bits: "none",
      zero_point_bits: 8,
      symmetric: false,
      variant: "16",
      memory: 1.5 * 1024 ** 3,
      components: ["transformer", "text_encoder"],
      include: ["to_q"],
      exclude: ["a{1,2}", "b"],
      layer_min_bits: { attn: 4 },
      candidate_bits: [2, 8],
      candidate_group_sizes: [32],
      target_bpw: 2.5,
      "evolution.generations": 3,
    });
    expect(Object.entries(values.layer_bit_widths)).toEqual([
      ["x=y$", 8],
      ["norm1", "none"],
    ]);
  });

  it.each([
    ["512MiB", 512 * 1024 ** 2],
    ["1GB", 1e9],
    ["2097152", 2097152],
    ["1.5MB", 1.5e6],
  ])("memory %s", async (text, bytes) => {
    expect((await resolveConfig({ flags: { memory: text } })).values.memory).toBe(bytes);
    expect((await resolveConfig({ file: { path: "q", text: `memory: ${text}` } })).values.memory).toBe(bytes);
  });

  it.each(["512", "10KB", "1iB", "much", "-1GB", "1e9999", "99999999999TB"])("refuses memory %s", async (text) => {
    const error = await refusal({ flags: { memory: text } });
    expect(error.code).toBe("E_CONFIG");
    expect(error.message).toContain(`--memory: "${text}" is not allowed`);
  });

  it.each([
    ["ARROW_QUANT_BIT_WIDTH", "four", "2, 3, 4, 5, 6 or 8"],
    ["ARROW_QUANT_BIT_WIDTH", "4.5", "2, 3, 4, 5, 6 or 8"],
    ["ARROW_QUANT_BIT_WIDTH", "4 ", "2, 3, 4, 5, 6 or 8"],
    ["ARROW_QUANT_GROUP_SIZE", "0x20", "an integer from 16 to 1024"],
    ["ARROW_QUANT_GROUP_SIZE", "32.5", "an integer from 16 to 1024"],
    ["ARROW_QUANT_FAIL_FAST", "yes", "true or false"],
    ["ARROW_QUANT_MIN_ACCURACY", "NaN", "a number from 0 to 1"],
    ["ARROW_QUANT_NUM_THREADS", "Infinity", "an integer from 1 to 1024 or null"],
  ])("refuses %s=%s and names the variable", async (variable, text, allowed) => {
    const error = await refusal({ environment: { [variable]: text } });
    expect(error.code).toBe("E_CONFIG");
    expect(error.message).toBe(`${variable}: ${JSON.stringify(text)} is not allowed: expected ${allowed}`);
  });

  it("takes 1 and 0 for booleans in variables", async () => {
    const config = await resolveConfig({
      environment: { ARROW_QUANT_FAIL_FAST: "1", ARROW_QUANT_ENABLE_STREAMING: "0" },
    });
    expect(config.values).toMatchObject({ fail_fast: true, enable_streaming: false });
  });

  it("refuses an unknown ARROW_QUANT variable and leaves others alone", async () => {
    const error = await refusal({
      environment: { ARROW_QUANT_BITWIDTH: "4", ARROWQUANT_KERNELS: "x", PATH: "y" },
    });
    expect(error.message).toBe("ARROW_QUANT_BITWIDTH: unknown variable: did you mean ARROW_QUANT_BIT_WIDTH?");
  });

  it.each([["norm1"], ["=4"], [["a=4", "a=8"]], [["a=7"]], [[7]]])("refuses layer bits %j", async (bits) => {
    expect((await refusal({ flags: { layer_bit_widths: bits } })).code).toBe("E_CONFIG");
  });
});

describe("problems", () => {
  it("are reported all at once, each with its place, key, value and what is allowed", async () => {
    const error = await refusal({
      flags: { group_size: 8 },
      config: { bit_width: "4" },
      environment: { ARROW_QUANT_BIT_WIDTH: "four" },
      file: { path: "quant.yaml", text: "# a comment\nbit_width: 7\nbit_widht: 4\ninclude: [a, 5]\n" },
    });
    expect(error.code).toBe("E_CONFIG");
    expect(error.exitCode).toBe(2);
    expect(error.message.split("\n").map((line) => line.trim())).toEqual([
      "6 problems in the configuration:",
      "--group-size: 8 is not allowed: expected an integer from 16 to 1024",
      'config.bit_width: "4" is not allowed: expected 2, 3, 4, 5, 6 or 8',
      'ARROW_QUANT_BIT_WIDTH: "four" is not allowed: expected 2, 3, 4, 5, 6 or 8',
      "quant.yaml:2:12: bit_width: 7 is not allowed: expected 2, 3, 4, 5, 6 or 8",
      'quant.yaml:3:1: unknown key "bit_widht": did you mean "bit_width"?',
      "quant.yaml:4:14: include[1]: 5 is not allowed: expected text of 1 to 512 characters",
    ]);
    const problems = error.details["problems"] as Record<string, unknown>[];
    expect(problems[3]).toEqual({
      message: "quant.yaml:2:12: bit_width: 7 is not allowed: expected 2, 3, 4, 5, 6 or 8",
      source: "file",
      key: "bit_width",
      value: 7,
      allowed: "2, 3, 4, 5, 6 or 8",
      file: "quant.yaml",
      line: 2,
      column: 12,
    });
    expect(JSON.parse(JSON.stringify(error.details))).toEqual(error.details);
  });

  it("a problem alone is the whole message", async () => {
    const error = await refusal({ file: { path: "quant.yaml", text: "a: 1\n\nbit_widht: 3\n" } });
    expect(error.message).toContain("quant.yaml:3:1: unknown key");
    const alone = await refusal({ file: { path: "quant.yaml", text: "\n\nbit_widht: 3\n" } });
    expect(alone.message).toBe('quant.yaml:3:1: unknown key "bit_widht": did you mean "bit_width"?');
  });

  it("a key like none of ours gets them all", async () => {
    const error = await refusal({ config: { zzzzzzzzzzzz: 1 } });
    for (const key of CONFIG_KEYS) expect(error.message).toContain(key);
  });

  it("a single letter wrong in any key is recognised", async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...CONFIG_KEYS), fc.nat(), async (key, at) => {
        const position = at % key.length;
        const misspelt = `${key.slice(0, position)}7${key.slice(position + 1)}`;
        const error = await refusal({ config: { [misspelt]: 1 } });
        expect(error.message).toContain(`did you mean "${key}"?`);
      }),
      { numRuns: 60 },
    );
  });

  it.each(["__proto__", "constructor", "toString", "hasOwnProperty"])("%s is no key", async (key) => {
    const error = await refusal({ file: { path: "q.yaml", text: `${key}: 1\n` } });
    expect(error.message).toContain(`q.yaml:1:1: unknown key "${key}"`);
  });

  it("a pattern that is a bare number would lose its place, and is refused", async () => {
    const error = await refusal({ file: { path: "q.yaml", text: "layer_bit_widths:\n  b: 4\n  12: 8\n" } });
    expect(error.message).toBe(
      'q.yaml:3:7: layer_bit_widths: the pattern "12" is a bare number, ' +
        "whose place in the order is lost: write (12)",
    );
    const { values } = await resolveConfig({
      file: { path: "q.yaml", text: "layer_bit_widths:\n  b: 4\n  (12): 8\n  a: none" },
    });
    expect(Object.keys(values.layer_bit_widths)).toEqual(["b", "(12)", "a"]);
  });

  it.each([
    ["components", []],
    ["components", ["../vae"]],
    ["variant", "../fp16"],
    ["variant", ""],
    ["include", ["x".repeat(513)]],
    ["super_group_size", 1 << 20],
    ["min_accuracy", 1.01],
    ["min_accuracy", Number.NaN],
    ["num_threads", 0],
    ["scale_bits", 1],
    ["scale_bits", null],
    ["method", "awq"],
    ["layer_bit_widths", { a: "4" }],
    ["layer_bit_widths", ["a=4"]],
    ["candidate_bits", []],
    ["candidate_bits", [7]],
    ["candidate_group_sizes", [8]],
    ["layer_max_bits", { a: "none" }],
    ["evolution", { population: 1 }],
  ])("refuses config.%s = %j", async (key, value) => {
    const error = await refusal({ config: { [key]: value } });
    expect(error.code).toBe("E_CONFIG");
    expect(error.message).toContain(`config.${key}`);
  });
});

describe("contradictions", () => {
  it.each([
    [{ method: "r2q", bit_width: 4 }, "method", "bit_width"],
    [{ method: "r2q", scale_bits: "none" }, "method", "scale_bits"],
    [{ method: "r2q", zero_point_bits: 4 }, "method", "zero_point_bits"],
    [{ method: "r2q", symmetric: true }, "method", "symmetric"],
    [{ method: "hqq", symmetric: true }, "method", "symmetric"],
    [{ symmetric: true, zero_point_bits: 4 }, "zero_point_bits", "symmetric"],
    [{ super_group_size: 1000, group_size: 64 }, "super_group_size", "group_size"],
    [{ super_group_size: 1024, scale_bits: "none" }, "super_group_size", "scale_bits"],
    [{ weighting: "none", method: "rtn" }, "weighting", "method"],
    [{ preserve_gain: false, method: "hqq" }, "preserve_gain", "method"],
    [{ include: ["a"], exclude: ["b", "a"] }, "include", "exclude"],
    [{ fail_fast: true, min_accuracy: 0 }, "fail_fast", "min_accuracy"],
    [{ num_time_groups: 4, enable_time_aware: false }, "num_time_groups", "enable_time_aware"],
    [{ target_bpw: 3, target_model_size_mb: 12 }, "target_bpw", "target_model_size_mb"],
    [{ max_error: 0.1, mean_group_size: 64 }, "max_error", "mean_group_size"],
    [{ target_bpw: 3, enable_mixed_precision: false }, "target_bpw", "enable_mixed_precision"],
    [{ bit_width: 4, target_bpw: 3 }, "bit_width", "target_bpw"],
    [{ max_error: 0.1, sensitivity: "entropy" }, "max_error", "sensitivity"],
    [{ group_size: 64, candidate_group_sizes: [32] }, "group_size", "candidate_group_sizes"],
    [{ super_group_size: 96, candidate_group_sizes: [32, 64] }, "super_group_size", "candidate_group_sizes"],
  ])("%j names both", async (settings, first, second) => {
    const [one, two] = [first, second].map((key) => [key, (settings as Record<string, unknown>)[key]] as const);
    // From two sources, so that the message has to tell them apart.
    const error = await refusal({
      flags: { [one![0]]: one![1] },
      file: { path: "quant.yaml", text: `\n${two![0]}: ${JSON.stringify(two![1])}\n` },
    });
    expect(error.code).toBe("E_CONFLICT");
    expect(error.exitCode).toBe(2);
    expect(error.message).toMatch(
      new RegExp(`^${first} .*\\(flag --\\S+\\) contradicts ${second} .*\\(file quant.yaml:2\\): `),
    );
    expect(error.hint).toMatch(/^drop /);
  });

  it("need both settings given by hand", async () => {
    for (const settings of [
      { method: "r2q" },
      { method: "hqq" },
      { scale_bits: "none" },
      { group_size: 48 },
      { super_group_size: 96 },
      { weighting: "none" },
      { symmetric: true },
      { fail_fast: true },
      { min_accuracy: 0 },
      { enable_time_aware: false },
      { target_bpw: 3 },
      { bit_width: 4, mean_group_size: 64 },
      { group_size: 64, target_bpw: 3 },
    ]) {
      await expect(resolveConfig({ flags: settings })).resolves.toBeDefined();
    }
  });

  it("that do not hold pass", async () => {
    for (const settings of [
      { method: "r2q", bit_width: 2, scale_bits: 4 },
      { method: "mse", weighting: "none", preserve_gain: false, symmetric: true },
      { symmetric: true, zero_point_bits: "none" },
      { super_group_size: 960, group_size: 48 },
      { include: ["a", "b"], exclude: ["a"] },
    ]) {
      await expect(resolveConfig({ flags: settings })).resolves.toBeDefined();
    }
  });

  it("come after faults of single values", async () => {
    expect((await refusal({ flags: { method: "r2q", bit_width: 4, group_size: 1 } })).code).toBe("E_CONFIG");
  });
});
