import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readJobEntries } from "../../dist/batch/job-file.js";
import { checkRequests } from "../../dist/batch/jobs.js";
import type { ConfigSettings } from "../../dist/config/config.js";
import { listLeaves } from "../../dist/config/nested.js";
import { type ConfigSources, resolveConfig } from "../../dist/config/resolve.js";
import { CONFIG_KEYS } from "../../dist/config/schema.js";
import { ArrowQuantError } from "../../dist/errors.js";

const WINDOW = "thermodynamic.boundary_smoothing.window";
const INTERPOLATION = "thermodynamic.boundary_smoothing.interpolation";
const WEIGHT = "thermodynamic.transition_optimization.weight";
const THRESHOLD = "thermodynamic.validation.smoothness_threshold";

async function messagesOf(sources: ConfigSources): Promise<string[]> {
  const thrown: unknown = await resolveConfig(sources).catch((error: unknown) => error);
  if (!(thrown instanceof ArrowQuantError)) throw new Error("not refused");
  expect(thrown.code).toBe("E_CONFIG");
  return (thrown.details.problems as { message: string }[]).map(({ message }) => message);
}

const asFile = (text: string): ConfigSources => ({ file: { path: "q.yaml", text } });

describe("nested settings", () => {
  it("are read from YAML, JSON and objects alike, each with an origin of its own", async () => {
    const yaml = [
      "thermodynamic:",
      "  validation:",
      "    smoothness_threshold: 0.5",
      "  boundary_smoothing:",
      "    window: 2",
      "    interpolation: cubic",
      "  transition_optimization: {enabled: true, weight: 4}",
    ].join("\n");
    const thermodynamic: NonNullable<ConfigSettings["thermodynamic"]> = {
      validation: { smoothness_threshold: 0.5 },
      boundary_smoothing: { window: 2, interpolation: "cubic" },
      transition_optimization: { enabled: true, weight: 4 },
    };
    const config = await resolveConfig(asFile(yaml));
    expect(config.values).toMatchObject({ [THRESHOLD]: 0.5, [WINDOW]: 2, [INTERPOLATION]: "cubic", [WEIGHT]: 4 });
    expect(config.origins[WINDOW]).toEqual({ source: "file", detail: "q.yaml:5" });
    expect(config.origins[WEIGHT]).toEqual({ source: "file", detail: "q.yaml:7" });
    const others = await Promise.all([
      resolveConfig(asFile(JSON.stringify({ thermodynamic }))),
      resolveConfig({ config: { thermodynamic } }),
      resolveConfig({ config: { [THRESHOLD]: 0.5, thermodynamic: { ...thermodynamic, validation: null } } }),
    ]);
    for (const { values } of others) expect(values).toEqual(config.values);
    expect(others[1]?.origins[WINDOW]).toEqual({ source: "object", detail: `config.${WINDOW}` });
  });

  it("are won one by one", async () => {
    const config = await resolveConfig({
      flags: { [WEIGHT]: "3" },
      config: { thermodynamic: { boundary_smoothing: { interpolation: "sigmoid" } } },
      environment: { ARROW_QUANT_BOUNDARY_WINDOW: "7", ARROW_QUANT_BOUNDARY_INTERPOLATION: "cubic" },
      ...asFile("thermodynamic:\n  validation:\n    smoothness_threshold: 1\n  boundary_smoothing:\n    window: 2\n"),
    });
    expect(config.values).toMatchObject({ [WEIGHT]: 3, [INTERPOLATION]: "sigmoid", [WINDOW]: 7, [THRESHOLD]: 1 });
    expect([WEIGHT, INTERPOLATION, WINDOW, THRESHOLD].map((key) => config.origins[key as never])).toEqual([
      { source: "flag", detail: "--transition-weight" },
      { source: "object", detail: `config.${INTERPOLATION}` },
      { source: "environment", detail: "ARROW_QUANT_BOUNDARY_WINDOW" },
      { source: "file", detail: "q.yaml:3" },
    ]);
  });

  it.each([
    ["thermodynamic:\n", []],
    ["thermodynamic:\n  validation:\n", []],
    ["thermodynamic: 5\n", ["q.yaml:1:1: thermodynamic: 5 is not allowed: expected a mapping of validation and"]],
    [
      "thermodynamic:\n  boundary_smoothing: [1]\n",
      ["q.yaml:2:3: thermodynamic.boundary_smoothing: [1] is not allowed: expected a mapping of window and interpol"],
    ],
    [
      "a: 1\nthermodynamic:\n  boundary_smoothing:\n    window: -1\n    interpolation: square\n",
      [
        'q.yaml:1:1: unknown key "a"',
        `q.yaml:4:13: ${WINDOW}: -1 is not allowed: expected an integer from 0 to 1000`,
        `q.yaml:5:20: ${INTERPOLATION}: "square" is not allowed: expected linear, cubic or sigmoid`,
      ],
    ],
    [
      "thermodynamic:\n  boundary_smoothing:\n    windov: 1\n",
      [`q.yaml:3:5: unknown key "thermodynamic.boundary_smoothing.windov": did you mean "${WINDOW}"?`],
    ],
    [
      `${WINDOW}: 1\nthermodynamic:\n  boundary_smoothing:\n    window: 1\n`,
      [`q.yaml:4:5: ${WINDOW} is given twice, with dots and as a mapping`],
    ],
  ])("%j gives its faults with their lines", async (text, expected) => {
    const messages = expected.length === 0 ? [] : await messagesOf(asFile(text));
    if (expected.length === 0) await resolveConfig(asFile(text));
    expect(messages).toHaveLength(expected.length);
    for (const [index, message] of messages.entries()) expect(message).toContain(expected[index]);
  });

  it("an object's faults carry the dotted key", async () => {
    const config = { thermodynamic: { boundary_smoothing: { window: 0.5 }, other: 1 } };
    const messages = await messagesOf({ config });
    expect(messages[0]).toContain(`config.${WINDOW}: 0.5 is not allowed`);
    expect(messages[1]).toContain('config.thermodynamic.other: unknown key "thermodynamic.other"');
  });

  it("of a batch job stand over the file's defaults one by one", async () => {
    const text = [
      "defaults:",
      "  thermodynamic: {boundary_smoothing: {window: 1, interpolation: cubic}}",
      "jobs:",
      "  - model_path: a",
      "    output_path: b",
      "    thermodynamic:",
      "      boundary_smoothing:",
      "        window: 9",
    ].join("\n");
    const { entries, problems } = readJobEntries(text, "jobs.yaml");
    expect(problems).toEqual([]);
    expect(entries[0]?.settings).toEqual({ [WINDOW]: 9, [INTERPOLATION]: "cubic" });
    expect(entries[0]?.placeOf(WINDOW)).toBe("jobs.yaml:8:17");
    expect(entries[0]?.placeOf(INTERPOLATION)).toBe("jobs.yaml:2:66");
    expect(entries[0]?.labelOf(INTERPOLATION)).toBe("defaults");
    const jobs = await checkRequests([
      { input: "a", output: "b", config: { thermodynamic: { boundary_smoothing: { window: 3 } } } },
    ]);
    expect(jobs[0]?.config.values[WINDOW]).toBe(3);
  });

  it("any assignment to them reads back the same nested, dotted or mixed", async () => {
    const keys = CONFIG_KEYS.filter((key) => key.startsWith("thermodynamic.boundary") || key === THRESHOLD);
    const setting = fc.record({
      values: fc.constant({ [WINDOW]: 5, [INTERPOLATION]: "sigmoid", [THRESHOLD]: 0.75 } as Record<string, unknown>),
      dotted: fc.subarray([...keys]),
    });
    await fc.assert(
      fc.asyncProperty(setting, async ({ values, dotted }) => {
        const tree: Record<string, unknown> = {};
        for (const key of keys) {
          const steps = dotted.includes(key) ? [key] : key.split(".");
          let node = tree;
          for (const step of steps.slice(0, -1)) {
            node[step] ??= {};
            node = node[step] as Record<string, unknown>;
          }
          node[steps.at(-1) as string] = values[key];
        }
        expect((await resolveConfig({ config: tree })).values).toMatchObject(values);
        expect(new Set(listLeaves(tree, (key) => !keys.includes(key as never)).map(({ key }) => key))).toEqual(
          new Set(keys),
        );
      }),
      { numRuns: 20 },
    );
  });
});
