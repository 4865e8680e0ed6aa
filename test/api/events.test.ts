import { existsSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ArrowQuant, type ProgressEvent, type QuantizeEvent } from "../../dist/index.js";
import { useFolder } from "../quantize/source.js";
import { digest, dit, leftovers, plain, unet, writeSmallModel } from "./models.js";

const folder = useFolder();
const aq = new ArrowQuant({ threads: 2 });
let small = "";
beforeAll(async () => {
  small = await writeSmallModel(folder.path("small.safetensors"), 3);
});
afterAll(() => aq.dispose());

describe("run", () => {
  it("tells the plan, each layer in file order, progress, and the end", async () => {
    const output = folder.path("told.parquet");
    const events: QuantizeEvent[] = [];
    for await (const event of aq.run({ input: dit, output })) events.push(event);
    const [first] = events;
    const last = events.at(-1);
    expect(first?.type).toBe("planned");
    if (first?.type !== "planned" || last?.type !== "done") throw new Error("not the events they should be");
    const layers = events.filter((event) => event.type === "layer");
    expect(layers.map(({ layer }) => layer)).toEqual(last.result.layers);
    expect(layers.map(({ index }) => index)).toEqual(layers.map((_, index) => index));
    expect(new Set(layers.map(({ count }) => count))).toEqual(new Set([layers.length]));
    expect(first.plan.components[0]?.layers).toHaveLength(layers.length);
    const progress = events.filter((event) => event.type === "progress").map((event) => event.progress);
    expect(progress.at(-1)).toMatchObject({ phase: "finish", layersDone: layers.length });
    expect(progress.at(-1)?.bytesDone).toBe(progress.at(-1)?.bytesTotal);
    const plainly = folder.path("plainly.parquet");
    await aq.quantize({ input: dit, output: plainly });
    expect(await digest(output)).toBe(await digest(plainly));
  });

  it("throws what the job failed with, after the events before it", async () => {
    const output = folder.path("failed.parquet");
    const seen: string[] = [];
    const run = async () => {
      const config = { ...plain, bit_width: 2, min_accuracy: 0.9999, fail_fast: true };
      for await (const { type } of aq.run({ input: small, output, config })) seen.push(type);
    };
    await expect(run()).rejects.toMatchObject({ code: "E_QUALITY" });
    expect(seen[0]).toBe("planned");
    expect(seen).not.toContain("done");
    expect(existsSync(output)).toBe(false);
  });

  it("shows two jobs at work at the same time", async () => {
    const order: string[] = [];
    const follow = async (name: string, input: string) => {
      for await (const { type } of aq.run({ input, output: folder.path(`${name}.parquet`) })) {
        if (type === "layer" || type === "done") order.push(name);
      }
    };
    await Promise.all([follow("unet", unet), follow("dit", dit)]);
    // Neither waits for the other's end: each has a layer before the other's last.
    expect(order.indexOf("dit")).toBeLessThan(order.lastIndexOf("unet"));
    expect(order.indexOf("unet")).toBeLessThan(order.lastIndexOf("dit"));
  });
});

describe("progress", () => {
  it("is each job's own and never goes back, however many run", async () => {
    const inputs = [unet, dit, small, unet, dit, small];
    const told = await Promise.all(
      inputs.map(async (input, index) => {
        const events: ProgressEvent[] = [];
        const output = folder.path(`progress-${index}.parquet`);
        await aq.quantize({
          input,
          output,
          config: { modality: "image" },
          onProgress: (event) => void events.push(event),
        });
        const validated: ProgressEvent[] = [];
        await aq.validate({ original: input, quantized: output, onProgress: (event) => void validated.push(event) });
        return [events, validated];
      }),
    );
    const totals = new Map<string, number>();
    for (const [index, lists] of told.entries()) {
      for (const events of lists) {
        const end = events.at(-1) as ProgressEvent;
        expect(end.bytesDone).toBe(end.bytesTotal);
        const input = inputs[index] as string;
        totals.set(input, totals.get(input) ?? end.bytesTotal);
        for (const [at, event] of events.entries()) {
          expect(event.bytesTotal).toBe(totals.get(input));
          expect(event.bytesDone).toBeGreaterThanOrEqual(events[at - 1]?.bytesDone ?? 0);
          expect(event.layersDone).toBeGreaterThanOrEqual(events[at - 1]?.layersDone ?? 0);
        }
      }
    }
    expect(totals.size).toBe(3);
  });

  const broken = new Error("listener broke");
  it.each([
    [
      "throws",
      () => {
        throw broken;
      },
    ],
    ["rejects at once", () => Promise.reject(broken)],
    ["rejects later", () => new Promise<void>((_resolve, reject) => setImmediate(() => setImmediate(reject, broken)))],
  ])("whose listener %s fails its own job, with the error as cause and no output", async (how, onProgress) => {
    const output = folder.path(`${how}.parquet`);
    const sibling = folder.path(`${how}-sibling.parquet`);
    const [failed, fine] = await Promise.allSettled([
      aq.quantize({ input: small, output, config: plain, onProgress }),
      aq.quantize({ input: unet, output: sibling }),
    ]);
    expect(failed).toMatchObject({ status: "rejected", reason: { code: "E_CALLBACK", cause: broken } });
    expect(fine.status).toBe("fulfilled");
    expect(existsSync(output)).toBe(false);
    expect(leftovers(folder.path())).toEqual([]);
    const judged = aq.validate({ original: unet, quantized: sibling, onProgress });
    await expect(judged).rejects.toMatchObject({ code: "E_CALLBACK", cause: broken });
  });
});
