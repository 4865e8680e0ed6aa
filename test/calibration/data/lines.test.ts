import fc from "fast-check";
import { expect, it } from "vitest";
import { splitLines } from "../../../dist/calibration/data/lines.js";

async function* cut(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  // As readers do it: every chunk in the same memory.
  const buffer = new Uint8Array(64);
  for (let from = 0, index = 0; from < bytes.length; index += 1) {
    const size = Math.min(sizes[index % sizes.length] as number, bytes.length - from);
    buffer.fill(0).set(bytes.subarray(from, from + size));
    yield buffer.subarray(0, size);
    from += size;
  }
}

it("lines are those of the text, however it comes in pieces; those over the limit are told, blank ones are not", async () => {
  const text = fc.array(fc.constantFrom("a", "é", "\n", "\n", " ", "\r", "bcd"), { maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(
      text.map((parts) => parts.join("")),
      fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 0, max: 12 }),
      async (whole, sizes, limit) => {
        const found: [number, string | null][] = [];
        for await (const { number, bytes } of splitLines(cut(Buffer.from(whole), sizes), limit)) {
          found.push([number, bytes === null ? null : bytes.toString("utf8")]);
        }
        const lines = whole.split("\n").map((line, index): [number, string | null] => {
          return [index + 1, Buffer.byteLength(line) > limit ? null : line];
        });
        expect(found).toEqual(lines.filter(([, line]) => line === null || /[^ \t\r]/.test(line)));
      },
    ),
    { numRuns: 500 },
  );
});
