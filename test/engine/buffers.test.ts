import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BufferPool } from "../../dist/engine/buffers.js";

describe("BufferPool", () => {
  it("gives what was asked for, never one buffer twice, and keeps no more than its limit", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 100_000 }),
        fc.array(fc.record({ take: fc.boolean(), byteLength: fc.integer({ min: 1, max: 200_000 }) }), {
          maxLength: 100,
        }),
        (limit, steps) => {
          const pool = new BufferPool(limit);
          const taken: ArrayBuffer[] = [];
          for (const { take, byteLength } of steps) {
            const given = take ? undefined : taken.pop();
            if (given !== undefined) {
              pool.give(given);
              continue;
            }
            const buffer = pool.take(byteLength);
            expect(buffer.byteLength).toBeGreaterThanOrEqual(byteLength);
            expect(taken).not.toContain(buffer);
            taken.push(buffer);
          }
        },
      ),
    );
  });

  it("reuses a buffer that fits, and not one far too large", () => {
    const pool = new BufferPool(10_000_000);
    const large = new ArrayBuffer(4_000_000);
    pool.give(large);
    expect(pool.take(100)).not.toBe(large);
    expect(pool.take(2_000_000)).toBe(large);
  });
});
