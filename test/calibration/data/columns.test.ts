import { describe, expect, it } from "vitest";
import { jsonCell } from "../../../dist/calibration/data/cell.js";
import { matchColumns } from "../../../dist/calibration/data/columns.js";
import type { InputRole, SampleInput, SampleSpec } from "../../../dist/calibration/data/sample.js";
import { fitShape } from "../../../dist/calibration/data/shape.js";
import { failure } from "./rows.js";

function input(role: InputRole, name: string, shape: readonly (number | string)[]): SampleInput {
  return { role, name, dtype: role === "time" || role === "classLabels" ? "I64" : "F32", shape };
}

const TEXT_TO_IMAGE: SampleSpec = {
  inputs: [
    input("sample", "hidden", [4, "h", "w"]),
    input("time", "t_in", []),
    input("encoderStates", "encoder_hidden_states", ["tokens", 8]),
    input("other", "guidance", [2]),
  ],
};

const zeros = (...shape: number[]): unknown =>
  shape.length === 0 ? 0 : Array.from({ length: shape[0] as number }, () => zeros(...shape.slice(1)));

/** `input <- column (rule)` for columns with these values. */
async function match(columns: Readonly<Record<string, unknown>>, spec = TEXT_TO_IMAGE): Promise<string[]> {
  const row = (column: string) => (column in columns ? jsonCell(columns[column]) : "is missing");
  const found = await matchColumns(spec, Object.keys(columns), "data", async () => [row]);
  return found.map(({ input: name, column, by }) => `${name} <- ${column} (${by})`);
}

describe("columns", () => {
  it("are matched by the input's name, then the role's usual names, then by shape", async () => {
    expect(
      await match({
        index: 1,
        pixels: zeros(4, 2, 2),
        timestep: 3,
        encoderHiddenStates: zeros(5, 8),
        Guidance: zeros(2),
      }),
    ).toEqual([
      "hidden <- pixels (shape)",
      "t_in <- timestep (role)",
      "encoder_hidden_states <- encoderHiddenStates (name)",
      "guidance <- Guidance (name)",
    ]);
    expect(
      await match({
        latents: zeros(4, 2, 2),
        "noisy-latents": zeros(4, 2, 2),
        t: 3,
        promptEmbeds: zeros(5, 8),
        scale: zeros(2),
      }),
    ).toEqual([
      "hidden <- noisy-latents (role)",
      "t_in <- t (role)",
      "encoder_hidden_states <- promptEmbeds (role)",
      "guidance <- scale (shape)",
    ]);
  });

  it("that have an input's own name are not taken for another's", async () => {
    const spec = { inputs: [input("sample", "x", [2]), input("other", "sample", [2]), input("time", "t", [])] };
    expect(await match({ sample: zeros(2), latents: zeros(2), t: 0 }, spec)).toEqual([
      "x <- latents (role)",
      "sample <- sample (name)",
      "t <- t (name)",
    ]);
  });

  it.each<[string, Record<string, unknown>, RegExp]>([
    ["two of the shape", { a: zeros(4, 2, 2), b: zeros(4, 3, 3) }, /"hidden" .* could be column a or b/],
    ["one shape for two inputs", { x: zeros(4, 2, 2), g: zeros(2), tokens: zeros(1, 8) }, /no column .*"t_in"/],
    [
      "two spellings",
      { noisyLatents: zeros(4, 1, 1), noisy_latents: zeros(4, 1, 1) },
      /could be column noisyLatents or/,
    ],
    ["nothing that fits", { x: zeros(4, 2, 2), context: zeros(1, 8), t: 1, g: zeros(3) }, /no column .*"guidance"/],
    ["a number for an input without axes", { x: zeros(4, 2, 2), step: 1, context: zeros(1, 8), g: zeros(2) }, /"t_in"/],
  ])("are refused where there are %s", async (_, columns, message) => {
    expect(await failure(match(columns))).toMatchObject({
      code: "E_CALIBRATION",
      message: expect.stringMatching(message),
    });
  });

  it("are refused where two inputs have one column of their shape between them", async () => {
    const spec = { inputs: [input("time", "t", []), input("other", "a", [2]), input("other", "b", [2])] };
    expect(await failure(match({ t: 0, only: zeros(2) }, spec))).toMatchObject({ code: "E_CALIBRATION" });
  });
});

describe("a shape", () => {
  it.each<[number[], (number | string)[], readonly number[] | null]>([
    [
      [1, 16, 16],
      [1, 16, 16],
      [1, 16, 16],
    ],
    [
      [1, 1, 16, 16],
      [1, 16, 16],
      [1, 16, 16],
    ],
    [[256], [1, 16, 16], [1, 16, 16]],
    [
      [16, 16],
      [1, 16, 16],
      [1, 16, 16],
    ],
    [
      [16, 16, 1],
      [1, 16, 16],
      [1, 16, 16],
    ],
    [[], [], []],
    [[1], [], []],
    [[], [1], [1]],
    [
      [5, 8],
      ["tokens", 8],
      [5, 8],
    ],
    [[40], ["tokens", 8], [5, 8]],
    [
      [3, 3],
      ["n", "n"],
      [3, 3],
    ],
    [[2], [], null],
    [[255], [1, 16, 16], null],
    [[16, 16, 3], [3, 16, 16], null],
    [[8, 32], [1, 16, 16], null],
    [[41], ["tokens", 8], null],
    [[0], ["tokens", 8], null],
    [[40], ["a", "b"], null],
    [[3, 4], ["n", "n"], null],
    [[2, 16, 16], [16, 16], null],
  ])("of %j for an input of %j is %j", (found, wanted, expected) => {
    expect(fitShape(found, wanted, new Map())).toEqual(expected);
  });

  it("binds an axis for all inputs of a sample", () => {
    const sizes = new Map<string, number>();
    expect(fitShape([12], ["n", 4], sizes)).toEqual([3, 4]);
    expect(fitShape([5, 2], ["n", 2], sizes)).toBeNull();
    expect(fitShape([6], ["n", "m"], sizes)).toEqual([3, 2]);
    expect(Object.fromEntries(sizes)).toEqual({ n: 3, m: 2 });
  });
});
