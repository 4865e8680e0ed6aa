import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BLOCKS, DTYPES, type Dtype, largestSpanBytes, spanOf } from "../../../dist/tensor/dtype.js";
import { countElements } from "../../../dist/tensor/layout.js";
import { bytesOf, convert, KERNEL_BUILDS } from "../../kernels/harness.js";
import { openComponent, readExpected, readFloats, SAMPLES } from "./samples.js";

const BLOCK_DTYPES = Object.keys(BLOCKS) as (keyof typeof BLOCKS)[];
const component = await openComponent(join(SAMPLES, "blocks.gguf"));
const expected = readExpected(SAMPLES);
const tensors = component.tensors.filter(({ name }) => expected.has(name));

describe.each(KERNEL_BUILDS)("rebuilding blocks, %s", (build) => {
  it("gives what gguf-py gives, to the bit, for every type and shape", () => {
    expect(tensors).toHaveLength(expected.size);
    for (const tensor of tensors) {
      const { shape, bits } = expected.get(tensor.name) as { shape: number[]; bits: Uint32Array };
      expect(tensor.shape).toEqual(shape);
      const found = readFloats(build, component, tensor);
      expect(new Uint32Array(found.buffer), tensor.name).toEqual(bits);
    }
    expect(new Set(tensors.map(({ dtype }) => dtype))).toEqual(new Set([...BLOCK_DTYPES, "F32", "F16", "BF16", "F64"]));
  });

  it("does so whatever rows and slabs the elements are cut into", () => {
    const blocked = tensors.filter(({ dtype }) => dtype in BLOCKS);
    fc.assert(
      fc.property(fc.constantFrom(...blocked), fc.nat(), fc.integer({ min: 1, max: 40 }), (tensor, pick, slabRows) => {
        const count = countElements(tensor.shape);
        const divisors = Array.from({ length: count }, (_, index) => index + 1).filter((n) => count % n === 0);
        const cols = divisors[pick % divisors.length] as number;
        const found = readFloats(build, component, tensor, { cols, slabRows });
        expect(Buffer.from(found.buffer).equals(bytesOf(expected.get(tensor.name)?.bits as Uint32Array))).toBe(true);
      }),
      { numRuns: 150 },
    );
  });
});

it("both builds rebuild any bytes alike, scales that are Inf and NaN included", () => {
  fc.assert(
    fc.property(fc.constantFrom(...BLOCK_DTYPES), fc.integer({ min: 1, max: 3 }), fc.gen(), (dtype, blocks, gen) => {
      const { elements, bytes } = BLOCKS[dtype];
      const raw = gen(fc.uint8Array, { minLength: blocks * bytes, maxLength: blocks * bytes });
      const fill = gen(fc.constantFrom, "random", "ones", "infinite");
      if (fill !== "random") raw.fill(fill === "ones" ? 0xff : 0x7c, 0, bytes);
      const source = { rows: blocks, cols: elements, dtype, bytes: raw };
      expect(convert("simd", source, "F32")).toEqual(convert("scalar", source, "F32"));
    }),
  );
});

it("spans are the fewest whole blocks that hold the elements", () => {
  const dtypes: Dtype[] = [...BLOCK_DTYPES, "F16", "F32", "F8_E4M3"];
  for (const dtype of BLOCK_DTYPES) expect(DTYPES[dtype].bits).toBe((8 * BLOCKS[dtype].bytes) / BLOCKS[dtype].elements);
  fc.assert(
    fc.property(fc.constantFrom(...dtypes), fc.nat(2 ** 40), fc.nat(5000), (dtype, first, count) => {
      const { elements, bytes } =
        dtype in BLOCKS ? BLOCKS[dtype as "Q8_0"] : { elements: 1, bytes: DTYPES[dtype].bits / 8 };
      const { byteOffset, byteLength, skip } = spanOf(dtype, first, count);
      const firstHeld = (byteOffset / bytes) * elements;
      const endHeld = firstHeld + (byteLength / bytes) * elements;
      expect(firstHeld + skip).toBe(first);
      expect(skip).toBeLessThan(elements);
      expect(Number.isInteger(byteOffset / bytes) && Number.isInteger(byteLength / bytes)).toBe(true);
      expect(endHeld).toBeGreaterThanOrEqual(first + count);
      expect(endHeld - first - count).toBeLessThan(elements);
      expect(byteLength).toBeLessThanOrEqual(largestSpanBytes(dtype, count));
    }),
  );
});
