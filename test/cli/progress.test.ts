import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { progressLine } from "../../dist/cli/progress.js";

const update = {
  layer: "transformer_blocks.3.attn1.to_q.weight",
  bytesDone: 12 * 1024 ** 2,
  bytesTotal: 48 * 1024 ** 2,
  elapsedSeconds: 3,
  remainingSeconds: 9,
};

describe("progressLine", () => {
  it("says what, how far, how fast, how long and where", () => {
    const line = progressLine("quantizing unet", update, "███░", 200);
    expect(line).toBe(
      "quantizing unet  ███░   25 %  12.0 MiB of 48.0 MiB  4.00 MiB/s  0:09 left  transformer_blocks.3.attn1.to_q.weight",
    );
  });

  it("knows neither rate nor time before there is anything to go by", () => {
    const line = progressLine("x", { ...update, bytesDone: 0, remainingSeconds: null }, "", Infinity);
    expect(line).toBe("x    0 %  0 B of 48.0 MiB  transformer_blocks.3.attn1.to_q.weight");
  });

  it("is never wider than the terminal, never beyond 100 % and has no control characters", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "binary" }),
        fc.nat({ max: 2 ** 40 }),
        fc.nat({ max: 2 ** 40 }),
        fc.integer({ min: 10, max: 200 }),
        (layer, one, other, width) => {
          const [bytesDone, bytesTotal] = [Math.min(one, other), Math.max(one, other)];
          const line = progressLine("label", { ...update, layer, bytesDone, bytesTotal }, "", width);
          expect(line.length).toBeLessThanOrEqual(width);
          // biome-ignore lint/suspicious/noControlCharactersInRegex: that is the point
          expect(line).not.toMatch(/[\u0000-\u001f]/);
          expect(Number(/(\d+) %/.exec(line)?.[1] ?? 0)).toBeLessThanOrEqual(100);
        },
      ),
    );
  });
});
