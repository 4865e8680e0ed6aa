import { describe, expect, it } from "vitest";
import { JobGate } from "../../dist/engine/jobs.js";

const tick = () => new Promise((resolve) => setImmediate(resolve));

describe("JobGate", () => {
  it("lets in as many as there are places, the others first come, first served", async () => {
    const gate = new JobGate(2);
    const entered: number[] = [];
    const jobs = Array.from({ length: 5 }, async (_, index) => {
      const job = await gate.enter(undefined);
      entered.push(index);
      return job;
    });
    await tick();
    expect(entered).toEqual([0, 1]);
    (await jobs[1])?.[Symbol.dispose]();
    await tick();
    expect(entered).toEqual([0, 1, 2]);
    (await jobs[0])?.[Symbol.dispose]();
    (await jobs[2])?.[Symbol.dispose]();
    await tick();
    expect(entered).toEqual([0, 1, 2, 3, 4]);
  });

  it("gives up a turn whose signal is aborted, with its reason, and no other", async () => {
    const gate = new JobGate(1);
    const stop = new AbortController();
    const first = await gate.enter(undefined);
    const second = gate.enter(stop.signal);
    const third = gate.enter(undefined);
    stop.abort("enough");
    await expect(second).rejects.toBe("enough");
    first[Symbol.dispose]();
    expect((await third).signal.aborted).toBe(false);
  });

  it("closes by aborting all, waits until they have left, and lets nobody in", async () => {
    const gate = new JobGate(1);
    const inside = await gate.enter(undefined);
    const waiting = gate.enter(undefined);
    let closed = false;
    const closing = gate.close("over").then(() => {
      closed = true;
    });
    await expect(waiting).rejects.toBe("over");
    await tick();
    expect(inside.signal.reason).toBe("over");
    expect(closed).toBe(false);
    inside[Symbol.dispose]();
    await closing;
    await expect(gate.enter(undefined)).rejects.toBe("over");
  });
});
