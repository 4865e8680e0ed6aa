import { describe, expect, it } from "vitest";
import { ProgressMeter } from "../../dist/engine/meter.js";
import type { ProgressEvent } from "../../dist/engine/progress.js";
import { ArrowQuantError } from "../../dist/errors.js";

const totals = { layers: 1000, bytes: 1000 };

describe("ProgressMeter", () => {
  it("is rate-limited, monotonic, and complete at the end", async () => {
    const events: ProgressEvent[] = [];
    const meter = new ProgressMeter(
      "quantize",
      totals,
      (event) => void events.push(event),
      () => undefined,
    );
    for (let index = 0; index < 1000; index++) meter.add("unet", `layer.${index}`, 1, 1);
    await meter.finish("unet", new AbortController().signal);
    expect(events.length).toBeLessThan(100);
    for (const [index, event] of events.entries()) {
      const before = events[index - 1];
      if (before === undefined) continue;
      expect(event.bytesDone).toBeGreaterThanOrEqual(before.bytesDone);
      expect(event.elapsedSeconds).toBeGreaterThanOrEqual(before.elapsedSeconds);
    }
    expect(events.at(-1)).toMatchObject({ phase: "finish", layersDone: 1000, bytesDone: 1000, remainingSeconds: 0 });
  });

  it.each([
    [
      "throws",
      () => {
        throw new Error("listener broke");
      },
    ],
    ["rejects", () => Promise.reject(new Error("listener broke"))],
  ])("fails its own job where the listener %s", async (_how, listener) => {
    const failures: unknown[] = [];
    const meter = new ProgressMeter("quantize", totals, listener, (reason) => failures.push(reason));
    meter.add("unet", "a", 1, 1);
    await Promise.resolve();
    await Promise.resolve();
    expect(failures).toHaveLength(1);
    expect(failures[0]).toBeInstanceOf(ArrowQuantError);
    expect((failures[0] as Error).cause).toMatchObject({ message: "listener broke" });
  });

  it("waits at the end for what the listener has returned, unless the job is aborted", async () => {
    const stop = new AbortController();
    let reject: (reason: unknown) => void = () => undefined;
    const listener = () =>
      new Promise<void>((_resolve, refuse) => {
        reject = refuse;
      });
    const meter = new ProgressMeter("quantize", totals, listener, (reason) => stop.abort(reason));
    const finished = meter.finish("unet", stop.signal);
    reject(new Error("listener broke late"));
    await expect(finished).rejects.toMatchObject({ code: "E_CALLBACK", cause: { message: "listener broke late" } });
    const never = new ProgressMeter(
      "quantize",
      totals,
      () => new Promise(() => undefined),
      () => undefined,
    );
    await expect(never.finish("unet", AbortSignal.abort("enough"))).rejects.toBe("enough");
  });
});
