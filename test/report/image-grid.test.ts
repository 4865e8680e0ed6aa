/** The picture of samples: every pixel where it belongs, and no picture of what is none. */
import { decode } from "fast-png";
import { describe, expect, it } from "vitest";
import { drawImageGrid } from "../../dist/report/image-grid.js";

type Shape = [number, number, number, number];

const MARGIN = 4;
const GAP = 1;

/** Samples whose every value tells sample, channel and place. */
function count(shape: Shape, offset: number): Float32Array {
  const length = shape.reduce((product, size) => product * size, 1);
  return Float32Array.from({ length }, (_, i) => (((i * 37 + offset) % 256) / 255) * 2 - 1);
}

async function draw(original: Float32Array, quantized: Float32Array, shape: Shape) {
  const grid = await drawImageGrid(original, quantized, shape);
  if (grid.png === null) throw new Error(grid.reason as string);
  return { ...grid, image: decode(grid.png, { checkCrc: true }) };
}

describe.each([1, 3, 4])("of %i channels", (channels) => {
  it("holds both samples of each pair side by side", async () => {
    const shape: Shape = [6, channels, 70, 80];
    const original = count(shape, 0);
    const quantized = count(shape, 100);
    const { image, pairCount } = await draw(original, quantized, shape);
    expect(pairCount).toBe(6);
    expect(image).toMatchObject({
      channels,
      depth: 8,
      width: MARGIN + 4 * (2 * 80 + GAP + MARGIN),
      height: MARGIN + 2 * (70 + MARGIN),
    });
    const pixel = (x: number, y: number) =>
      Array.from(image.data.subarray((y * image.width + x) * channels, (y * image.width + x + 1) * channels));
    const wrong: unknown[] = [];
    for (let sample = 0; sample < 6; sample++) {
      const left = MARGIN + (sample % 4) * (2 * 80 + GAP + MARGIN);
      const top = MARGIN + Math.floor(sample / 4) * (70 + MARGIN);
      for (let y = 0; y < 70; y += 3) {
        for (let x = 0; x < 80; x += 7) {
          const byte = (values: Float32Array) => (_: unknown, c: number) =>
            Math.round((((values[((sample * channels + c) * 70 + y) * 80 + x] as number) + 1) / 2) * 255);
          const found = [...pixel(left + x, top + y), ...pixel(left + 80 + GAP + x, top + y)];
          const expected = [
            ...Array.from({ length: channels }, byte(original)),
            ...Array.from({ length: channels }, byte(quantized)),
          ];
          if (JSON.stringify(found) !== JSON.stringify(expected)) wrong.push({ sample, x, y, found, expected });
        }
        expect(pixel(left + 80, top + y).slice(0, 3)).toEqual(Array(Math.min(channels, 3)).fill(128));
      }
    }
    expect(wrong).toEqual([]);
    // White around, also where the last row has no more pairs.
    expect(pixel(0, 0)).toEqual(Array(channels).fill(255));
    expect(pixel(image.width - 20, image.height - 20)).toEqual(Array(channels).fill(255));
  });
});

it("enlarges small images by a whole factor", async () => {
  const { image } = await draw(Float32Array.of(-1, 0, 0.5, 1), Float32Array.of(1, 1, 1, 1), [1, 1, 2, 2]);
  expect(image).toMatchObject({ width: 2 * MARGIN + 2 * 64 + GAP, height: 2 * MARGIN + 64 });
  const at = (x: number, y: number) => image.data[(MARGIN + y) * image.width + MARGIN + x];
  expect([at(0, 0), at(31, 31), at(32, 31), at(63, 0)]).toEqual([0, 0, 128, 128]);
  expect([at(31, 32), at(0, 63), at(32, 32), at(63, 63)]).toEqual([191, 191, 255, 255]);
});

it("clips what overshoots", async () => {
  const { image } = await draw(Float32Array.of(-3), Float32Array.of(7), [1, 1, 1, 1]);
  const row = (MARGIN + 5) * image.width;
  expect([image.data[row + MARGIN], image.data[row + MARGIN + 64 + GAP]]).toEqual([0, 255]);
});

it("shows the first pairs of many", async () => {
  const shape: Shape = [100, 1, 64, 64];
  const { pairCount, image } = await draw(count(shape, 0), count(shape, 1), shape);
  expect(pairCount).toBe(32);
  expect(image.height).toBe(MARGIN + 8 * (64 + MARGIN));
});

describe("is none", () => {
  it.each([
    ["latents of 16 channels", [1, 16, 2, 2], 0, /16 channels/],
    ["latents of 4 channels, by their size", [1, 4, 2, 2], 4.2, /reach 4\.2/],
    ["samples that are no numbers", [1, 1, 2, 2], Number.NaN, /original model hold NaN/],
    ["no samples", [0, 1, 2, 2], 0, /empty/],
    ["images beyond any screen", [1, 1, 4, 5_000_000], 0, /too large/],
  ] as [string, Shape, number, RegExp][])("of %s", async (_, shape, value, reason) => {
    const samples = new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(value);
    const grid = await drawImageGrid(samples, samples, shape);
    expect(grid).toEqual({ png: null, reason: expect.stringMatching(reason), pairCount: 0 });
  });

  it("where shape and length disagree, which is an error", async () => {
    const call = drawImageGrid(new Float32Array(4), new Float32Array(5), [1, 1, 2, 2]);
    await expect(call).rejects.toMatchObject({ code: "E_SHAPE" });
  });
});
