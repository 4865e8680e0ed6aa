import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Queue, runInOrder } from "../../dist/engine/queue.js";

describe("Queue", () => {
  it("yields what was pushed before and while it is read, then ends", async () => {
    const queue = new Queue<number>();
    queue.push(1);
    const read: number[] = [];
    const reading = (async () => {
      for await (const item of queue) read.push(item);
    })();
    await Promise.resolve();
    queue.push(2);
    queue.push(3);
    queue.close();
    await reading;
    expect(read).toEqual([1, 2, 3]);
  });
});

describe("runInOrder", () => {
  it("yields results in order whatever the order of completion, never more than the window under way", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.integer({ min: 0, max: 20 }),
        fc.integer({ min: 1, max: 5 }),
        async (scheduler, count, window) => {
          let begun = 0;
          let consumed = 0;
          const run = async () => {
            const results: number[] = [];
            const source = runInOrder(count, window, (index) => {
              begun += 1;
              expect(begun - consumed).toBeLessThanOrEqual(window);
              return scheduler.schedule(Promise.resolve(index));
            });
            for await (const result of source) {
              results.push(result);
              consumed += 1;
            }
            return results;
          };
          const results = await scheduler.waitFor(run());
          expect(results).toEqual(Array.from({ length: count }, (_, index) => index));
        },
      ),
    );
  });

  it("passes on the first failure in order, after everything begun has ended", async () => {
    let running = 0;
    const source = runInOrder(5, 3, async (index) => {
      running += 1;
      await new Promise((resolve) => setImmediate(resolve));
      running -= 1;
      if (index >= 1) throw new Error(`failed at ${index}`);
      return index;
    });
    const seen: number[] = [];
    await expect(
      (async () => {
        for await (const index of source) seen.push(index);
      })(),
    ).rejects.toThrow("failed at 1");
    expect(seen).toEqual([0]);
    expect(running).toBe(0);
  });
});
