import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { describeAllowed } from "../../dist/config/problem.js";
import { CONFIG_KEYS, configJsonSchema, configSchema } from "../../dist/config/schema.js";

describe("the JSON Schema", () => {
  const schema = configJsonSchema();

  it("describes every key, requires none and allows no other", () => {
    expect(Object.keys(schema.properties ?? {})).toEqual([...CONFIG_KEYS, "thermodynamic", "evolution"]);
    for (const [key, property] of Object.entries(schema.properties ?? {})) {
      expect(property.description, key).toMatch(/^[A-Z].*\.$/);
      expect(property, key).toHaveProperty("default");
    }
    expect(schema).toMatchObject({ type: "object", additionalProperties: false });
    expect(schema).not.toHaveProperty("required");
  });

  it("gives defaults and examples that the settings take", () => {
    for (const key of CONFIG_KEYS) {
      const { default: standard, examples = [] } = schema.properties?.[key] ?? {};
      for (const value of [standard, ...examples]) {
        expect(configSchema.shape[key].safeParse(value).success, `${key} ${JSON.stringify(value)}`).toBe(true);
      }
    }
  });

  // Read back from its JSON, the schema is judged apart from the code that made it.
  const reader = z.fromJSONSchema(JSON.parse(JSON.stringify(schema)) as Parameters<typeof z.fromJSONSchema>[0]);

  it("takes what the settings take and refuses what they refuse", () => {
    const value = fc.oneof(
      fc.constantFrom<unknown>(
        ...[2, 3, 4, 8, 16, 15, 128, 1024, 1025, 0, 0.5, 1, 1.5, -1, null, true, false, "none", "magnitude"],
        ...["rtn", "auto", "awq", "local", "edge", "image", "keep", "error", "512MiB", "1GB", "512 XB", "fp16", "a/b"],
        ...["sampling", "static", "mse", "optimal", "auto", "natural", "cubic", 99.9, 101],
        ...[[], ["a"], [""], [1], ["a", "b"], {}, { a: 4 }, { a: "none" }, { a: 3 }, { "7": 4 }, 2 ** 30],
        ...[[4], [2, 8], [64, 128], [7.5], "qkv", "evolutionary", "model"],
      ),
      fc.integer(),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.constantFrom(...CONFIG_KEYS), value, (key, given) => {
        const bySettings = configSchema.safeParse({ [key]: given }).success;
        // Units are within the text's pattern; the number of bytes they come to is not.
        if (key === "memory" && typeof given === "string" && !bySettings) return;
        expect(reader.safeParse({ [key]: given }).success).toBe(bySettings);
      }),
      { numRuns: 2000 },
    );
  });
});

describe("keys with dots", () => {
  const nested = CONFIG_KEYS.filter((key) => key.includes("."));

  it("are the same leaves when they are nested", () => {
    expect(nested.length).toBeGreaterThan(0);
    const schema = configJsonSchema();
    for (const key of nested) {
      const leaf = key
        .split(".")
        .reduce<ReturnType<typeof configJsonSchema> | undefined>((part, step) => part?.properties?.[step], schema);
      expect(leaf, key).toEqual(schema.properties?.[key]);
    }
    const sections = JSON.stringify([schema.properties?.["thermodynamic"], schema.properties?.["evolution"]]);
    expect(sections.match(/"default":(?!\{)/g)).toHaveLength(nested.length);
  });
});

describe("describeAllowed", () => {
  it.each([
    ["bit_width", "2, 3, 4, 5, 6 or 8"],
    ["scale_bits", "an integer from 2 to 8 or none"],
    ["method", "rtn, hqq, mse, r2q, gptq, auto or null"],
    ["enable_spatial", "true, false or null"],
    ["min_accuracy", "a number from 0 to 1"],
    ["memory", 'an integer of at least 1048576 or text like "512MiB"'],
    ["variant", 'text like "fp16" or null'],
    ["components", "a list of texts or null"],
    ["candidate_group_sizes", "a list of an integer from 16 to 1024 or null"],
    ["tie_patterns", "a list of texts"],
    ["activation_bits", "4, 5, 6, 7, 8, 16 or null"],
    ["spatial_alpha", "a number from 0 to 1 or auto"],
    ["thermodynamic.boundary_smoothing.interpolation", "linear, cubic or sigmoid"],
    ["layer_bit_widths", "a mapping of regular expressions to 2, 3, 4, 5, 6, 8 or none"],
  ] as const)("%s", (key, words) => {
    expect(describeAllowed(key)).toBe(words);
  });

  it("follows a path into a value", () => {
    expect(describeAllowed("layer_bit_widths", ["norm1"])).toBe("2, 3, 4, 5, 6, 8 or none");
    expect(describeAllowed("include", [3])).toBe("text of 1 to 512 characters");
  });
});
