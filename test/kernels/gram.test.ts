/** Rows of a layer's inputs and their Gram matrix beside plain loops. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Gram } from "../../dist/kernels/gram.js";
import { type KernelBuild, loadKernels } from "../../dist/kernels/load.js";
import { type ConvolvedImage, ROWS_PER_BLOCK, RowBlock } from "../../dist/kernels/row-block.js";
import { Staging } from "../../dist/kernels/staging.js";
import { gaussians, KERNEL_BUILDS, kernelsOf } from "./harness.js";
import { gramOf } from "./hessians.js";
import { encodeFloat } from "./reference.js";

function openBlock(build: KernelBuild, maxCols: number) {
  const kernels = kernelsOf(build);
  kernels.arena.reset();
  const staging = new Staging(kernels);
  return { kernels, block: new RowBlock(kernels, staging, maxCols) };
}

/** XᵀX/n of the rows of x, added in blocks of up to `blockRows`. */
function gramInBlocks(build: KernelBuild, x: Float32Array, cols: number, blockRows: number): Float32Array {
  const { kernels, block } = openBlock(build, cols);
  const gram = new Gram(kernels, cols);
  const rows = x.length / cols;
  for (let row = 0; row < rows; row += blockRows) {
    block.start(cols);
    block.addRows(
      x,
      "F32",
      Array.from({ length: Math.min(blockRows, rows - row) }, (_, i) => row + i),
    );
    gram.add(block);
  }
  expect(gram.rowCount).toBe(rows);
  const found: number[] = [];
  gram.forEachBand((band) => found.push(...band));
  return Float32Array.from(found);
}

/** im2col of one image by the definition of a convolution. */
function coveredBy(image: ConvolvedImage, x: ArrayLike<number>, position: number): number[] {
  const { channels, height, width, kernel, strides, pads, dilations } = image;
  const outWidth = outSize(image)[1];
  const row: number[] = [];
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < kernel[0]; i++) {
      for (let j = 0; j < kernel[1]; j++) {
        const y = Math.floor(position / outWidth) * strides[0] - pads[0] + i * dilations[0];
        const xx = (position % outWidth) * strides[1] - pads[1] + j * dilations[1];
        const isInside = y >= 0 && y < height && xx >= 0 && xx < width;
        row.push(isInside ? (x[(c * height + y) * width + xx] as number) : 0);
      }
    }
  }
  return row;
}

function outSize({ height, width, kernel, strides, pads, dilations }: ConvolvedImage): [number, number] {
  const extent = (size: number, axis: 0 | 1) =>
    Math.floor(
      (size + pads[axis] + (pads[axis + 2] as number) - dilations[axis] * (kernel[axis] - 1) - 1) / strides[axis],
    ) + 1;
  return [extent(height, 0), extent(width, 1)];
}

const images = fc
  .record({
    channels: fc.integer({ min: 1, max: 5 }),
    height: fc.integer({ min: 1, max: 9 }),
    width: fc.integer({ min: 1, max: 9 }),
    kernel: fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 4 })),
    strides: fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })),
    pads: fc.tuple(fc.nat(2), fc.nat(2), fc.nat(2), fc.nat(2)),
    dilations: fc.tuple(fc.integer({ min: 1, max: 2 }), fc.integer({ min: 1, max: 2 })),
  })
  .filter((image) => outSize(image).every((size) => size >= 1));

describe.each(KERNEL_BUILDS)("Gram matrix, %s", (build) => {
  it("is that of float64, whatever the blocks", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 45 }),
        fc.integer({ min: 1, max: 300 }),
        fc.integer({ min: 1, max: ROWS_PER_BLOCK }),
        (cols, rows, blockRows) => {
          const x = gaussians(rows * cols, cols + rows, 1);
          const found = gramInBlocks(build, x, cols, blockRows);
          const expected = gramOf(x, cols);
          const size = (k: number) => Math.sqrt(expected[k * (cols + 1)] as number);
          for (const [k, value] of expected.entries()) {
            const error = Math.abs((found[k] as number) - value);
            expect(error).toBeLessThan(2e-6 * size(Math.floor(k / cols)) * size(k % cols));
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  it("is zero of nothing, and symmetric to the bit of anything", () => {
    const { kernels, block } = openBlock(build, 20);
    const gram = new Gram(kernels, 20);
    block.start(20);
    gram.add(block);
    gram.forEachBand((band) => expect(band.every((value) => value === 0)).toBe(true));
    const found = gramInBlocks(build, gaussians(90 * 37, 5), 37, 40);
    for (const [k, value] of found.entries()) expect(value).toBe(found[(k % 37) * 37 + Math.floor(k / 37)]);
  });

  it("takes what a convolution's kernel covers, zeros outside the image", () => {
    fc.assert(
      fc.property(images, fc.nat(50), (image, seed) => {
        const cols = image.channels * image.kernel[0] * image.kernel[1];
        const [outHeight, outWidth] = outSize(image);
        const imageLength = image.channels * image.height * image.width;
        const x = gaussians(2 * imageLength, seed + 1);
        const positions = Array.from({ length: outHeight * outWidth }, (_, p) => p)
          .reverse()
          .slice(0, 50);
        const { block } = openBlock(build, cols);
        block.start(cols);
        // A row before shows where images begin.
        block.addRows(gaussians(cols, 3), "F32", [0]);
        for (const first of [0, imageLength]) block.addImageRows(x, "F32", first, image, positions);
        const expected = [0, imageLength].flatMap((first) =>
          positions.flatMap((position) => coveredBy(image, x.subarray(first, first + imageLength), position)),
        );
        expect([...block.rows().subarray(cols)]).toEqual(expected);
        expect([...block.rows().subarray(0, cols)]).toEqual([...gaussians(cols, 3)]);
      }),
      { numRuns: 80 },
    );
  });

  it("takes images of more channels than are brought over at a time, and rows of any float type", () => {
    const image = {
      channels: 40,
      height: 50,
      width: 60,
      kernel: [2, 3],
      strides: [7, 5],
      pads: [1, 0, 0, 2],
      dilations: [1, 1],
    } as const;
    const x = gaussians(40 * 50 * 60, 9);
    const { block } = openBlock(build, 240);
    block.start(240);
    block.addImageRows(x, "F32", 0, image, [0, 5, 80]);
    expect([...block.rows()]).toEqual([0, 5, 80].flatMap((position) => coveredBy(image, x, position)));

    const values = Float32Array.from(gaussians(60, 2), (value) => Math.round(value * 64) / 64);
    for (const [array, dtype] of [
      [Float64Array.from(values), "F64"],
      [Uint16Array.from(values, (value) => encodeFloat(value, 5, 10)), "F16"],
      [Uint16Array.from(values, (value) => encodeFloat(value, 8, 7)), "BF16"],
    ] as const) {
      block.start(20);
      block.addRows(array, dtype, [2, 0]);
      expect([...block.rows()]).toEqual([...values.subarray(40), ...values.subarray(0, 20)]);
    }
  });

  it("is told exactly what it takes, and refuses more than there is room for", () => {
    const needed = Staging.bytesNeeded() + RowBlock.bytesNeeded(77) + Gram.bytesNeeded(77);
    const kernels = loadKernels({ build, maxBytes: needed });
    const block = new RowBlock(kernels, new Staging(kernels), 77);
    new Gram(kernels, 77);
    expect(kernels.arena.usedBytes).toBe(needed);
    expect(() => block.start(78)).toThrow("78 columns for a block of 77");
    block.start(1);
    const indices = Array.from({ length: ROWS_PER_BLOCK + 1 }, () => 0);
    expect(() => block.addRows(new Float32Array(1), "F32", indices)).toThrow("129 rows for a block of 128");
  });
});

it("gives the same bits with SIMD and without", () => {
  for (const [cols, rows] of [
    [3, 10],
    [44, 200],
    [64, 128],
    [101, 129],
  ] as const) {
    const x = gaussians(rows * cols, cols);
    expect(gramInBlocks("simd", x, cols, 100)).toEqual(gramInBlocks("scalar", x, cols, 100));
  }
});
