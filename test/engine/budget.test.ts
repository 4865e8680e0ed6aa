import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ByteBudget } from "../../dist/engine/budget.js";
import { ArrowQuantError } from "../../dist/errors.js";

const never = new AbortController().signal;

describe("ByteBudget", () => {
  it("never hands out more than it has, serves in order, and ends as it began", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 100 }),
        fc.array(fc.integer({ min: 1, max: 100 }), { maxLength: 50 }),
        async (capacity, sizes) => {
          const budget = new ByteBudget(capacity);
          const asked = sizes.filter((size) => size <= capacity);
          const served: number[] = [];
          let held = 0;
          await Promise.all(
            asked.map(async (size, index) => {
              await budget.acquire(size, never);
              served.push(index);
              held += size;
              expect(held).toBeLessThanOrEqual(capacity);
              await Promise.resolve();
              held -= size;
              budget.release(size);
            }),
          );
          expect(served).toEqual(asked.map((_, index) => index));
          expect(budget.available).toBe(capacity);
        },
      ),
    );
  });

  it("refuses what it can never give", async () => {
    const error = await new ByteBudget(10).acquire(11, never).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(ArrowQuantError);
    expect(error.code).toBe("E_MEMORY");
    expect(error.details).toMatchObject({ byteCount: 11, capacity: 10 });
  });

  it("lets an aborted waiter go with the signal's reason and serves those behind it", async () => {
    const budget = new ByteBudget(10);
    await budget.acquire(8, never);
    const controller = new AbortController();
    const large = budget.acquire(10, controller.signal);
    const small = budget.acquire(2, never);
    const reason = new Error("enough");
    controller.abort(reason);
    await expect(large).rejects.toBe(reason);
    await small;
    expect(budget.available).toBe(0);
  });
});
