import { existsSync, readdirSync, readlinkSync, realpathSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ArrowQuant } from "../../dist/index.js";
import { useFolder } from "../quantize/source.js";
import { digest, leftovers, plain, unet, writeLargeModel, writeSmallModel } from "./models.js";

const folder = useFolder();
const aq = new ArrowQuant({ threads: 2 });
let small = "";
let large = "";
beforeAll(async () => {
  small = await writeSmallModel(folder.path("small.safetensors"), 2);
  large = await writeLargeModel(folder.path("large.safetensors"));
});
afterAll(() => aq.dispose());

const slow = { modality: "image", method: "mse" } as const;
const reason = new Error("enough");
let nextOutput = 0;
const newOutput = () => folder.path(`output-${nextOutput++}.parquet`);
/** How often this process holds a file open: other descriptors come and go with threads and pipes. */
const countOpen = (path: string) =>
  readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === realpathSync(path);
    } catch {
      // The listing's own is gone by now.
      return false;
    }
  }).length;

async function expectGone(output: string): Promise<void> {
  expect(existsSync(output)).toBe(false);
  expect(leftovers(folder.path())).toEqual([]);
  // The pool works on: on both threads, with nothing of its budget lost.
  const results = await Promise.all(
    [newOutput(), newOutput()].map((path) => aq.quantize({ input: small, output: path, config: plain })),
  );
  expect(results.map(({ summary }) => summary.quantized)).toEqual([3, 3]);
}

describe("a cancelled job rejects with the signal's reason and leaves nothing", () => {
  it("before it starts", async () => {
    const output = newOutput();
    const signal = AbortSignal.abort(reason);
    await expect(aq.quantize({ input: unet, output, signal })).rejects.toBe(reason);
    await expect(aq.validate({ original: unet, quantized: output, signal })).rejects.toBe(reason);
    await expect(aq.export({ input: output, output: `${output}.safetensors`, dtype: "F16", signal })).rejects.toBe(
      reason,
    );
    await expectGone(output);
  });

  it("during planning", async () => {
    const output = newOutput();
    const stop = new AbortController();
    const working = aq.quantize({ input: unet, output, signal: stop.signal });
    stop.abort(reason);
    await expect(working).rejects.toBe(reason);
    await expectGone(output);
  });

  it("while a large layer is quantized", async () => {
    const output = newOutput();
    const stop = new AbortController();
    const seen: string[] = [];
    for await (const event of (async function* () {
      try {
        yield* aq.run({ input: large, output, config: slow, signal: stop.signal });
      } catch (thrown) {
        expect(thrown).toBe(reason);
        yield { type: "thrown" as const };
      }
    })()) {
      seen.push(event.type);
      // The first of the layer's chunks is done, the next are at work on the threads.
      if (event.type !== "progress") continue;
      expect(countOpen(large)).toBeGreaterThan(0);
      stop.abort(reason);
    }
    expect(seen).toEqual(["planned", "progress", "thrown"]);
    expect(countOpen(large)).toBe(0);
    await expectGone(output);
  });

  it("while it writes, by leaving the loop of events", async () => {
    const output = newOutput();
    for await (const event of aq.run({ input: unet, output })) {
      if (event.type !== "layer") continue;
      expect(leftovers(folder.path())).toHaveLength(1);
      break;
    }
    await expectGone(output);
  });

  it("after a time", async () => {
    const output = newOutput();
    const job = { input: large, output, config: slow, signal: AbortSignal.timeout(100) };
    await expect(aq.quantize(job)).rejects.toMatchObject({ name: "TimeoutError" });
    await expectGone(output);
  });

  it("while it validates", async () => {
    const quantized = newOutput();
    await aq.quantize({ input: unet, output: quantized });
    const before = await digest(quantized);
    const stop = new AbortController();
    const job = { original: unet, quantized, signal: stop.signal, onProgress: () => stop.abort(reason) };
    await expect(aq.validate(job)).rejects.toBe(reason);
    expect(await digest(quantized)).toBe(before);
    expect((await aq.validate({ original: unet, quantized })).passed).toBe(true);
  });
});

describe("of many jobs", () => {
  it.each([
    ["one", (index: number) => index === 7],
    ["some", (index: number) => index % 3 === 0],
    ["all", () => true],
  ])("%s cancelled: these reject, the others give the same file as alone", async (_how, isCancelled) => {
    const alone = newOutput();
    await aq.quantize({ input: small, output: alone, config: plain });
    const stop = new AbortController();
    const outputs = Array.from({ length: 20 }, newOutput);
    // Those to be cancelled have work for seconds, and are cancelled once one of them is under way.
    const working = outputs.map((output, index) =>
      isCancelled(index)
        ? aq.quantize({ input: large, output, config: slow, signal: stop.signal, onProgress: () => stop.abort(reason) })
        : aq.quantize({ input: small, output, config: plain }),
    );
    const settled = await Promise.allSettled(working);
    const expected = await digest(alone);
    for (const [index, outcome] of settled.entries()) {
      const output = outputs[index] as string;
      if (isCancelled(index)) {
        expect(outcome).toEqual({ status: "rejected", reason });
        expect(existsSync(output)).toBe(false);
      } else {
        expect(outcome.status).toBe("fulfilled");
        expect(await digest(output)).toBe(expected);
      }
    }
    await expectGone(newOutput());
  });
});
