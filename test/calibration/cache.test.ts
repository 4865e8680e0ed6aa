/** What is kept, what is found again, what is left behind. */
import { existsSync, readdirSync } from "node:fs";
import { appendFile, readFile, rename, truncate, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { calibrateModel } from "../../dist/calibration/calibrate.js";
import type { CalibrateJob } from "../../dist/calibration/calibration-job.js";
import { Session } from "../../dist/engine/session.js";
import { waves } from "../graph/onnx-model.ts";
import { buildSafetensors } from "../hostile/safetensors/build.ts";
import { useFolder } from "../quantize/source.js";
import { makeRows, smallJob, writeGraph, writeScheduler, writeSmallModel } from "./small-model.js";

const folder = useFolder();
let session: Session;
beforeAll(() => {
  session = new Session({ threads: 1 });
  writeSmallModel(folder.path("model"), rows);
});
afterAll(() => session.dispose());

const rows = makeRows(24, (index) => index % 5);

function calibrate(cache: string, rest: Partial<CalibrateJob> = {}) {
  return calibrateModel(smallJob(folder.path("model"), folder.path(cache), rest), session);
}

/** Everything below a folder but finished files of the cache. */
function leftovers(...names: string[]): string[] {
  const path = folder.path(...names);
  if (!existsSync(path)) return [];
  return readdirSync(path, { recursive: true, encoding: "utf8" }).filter((name) => name.includes(".arrowquant-"));
}

describe("the cache", () => {
  it("gives what was taken before, without running anything, and copies it to an output", async () => {
    const first = await calibrate("kept");
    // Without the graph nothing could be run.
    const again = await calibrate("kept");
    const copied = await calibrate("kept", { output: folder.path("copy.safetensors") });
    expect([first.cached, again.cached, copied.cached]).toEqual([false, true, true]);
    expect([again.path, again.fingerprint]).toEqual([first.path, first.fingerprint]);
    expect(copied.path).toBe(folder.path("copy.safetensors"));
    expect((await readFile(copied.path)).equals(await readFile(first.path))).toBe(true);
    expect(leftovers("kept")).toEqual([]);
  });

  it("keeps what goes to an output, too", async () => {
    const first = await calibrate("both", { output: folder.path("one.safetensors") });
    const again = await calibrate("both", { output: folder.path("two.safetensors") });
    expect([first.cached, again.cached]).toEqual([false, true]);
    expect(again.fingerprint).toBe(first.fingerprint);
  });

  it.each([
    ["samples", { samples: 20 }],
    ["held-back samples", { heldBackEvery: 0 }],
    ["being asked for anew", { fresh: true }],
  ] as [string, Partial<CalibrateJob>][])("takes others for other %s", async (_, rest) => {
    await calibrate("others");
    expect((await calibrate("others", rest)).cached).toBe(false);
  });

  it("serves those who need no Hessians from a file that has them, and not the other way round", async () => {
    expect((await calibrate("hessians", { hessians: false })).cached).toBe(false);
    expect((await calibrate("hessians", { hessians: true })).cached).toBe(false);
    expect((await calibrate("with", { hessians: true })).cached).toBe(false);
    const served = await calibrate("with", { hessians: false });
    expect([served.cached, served.info.settings.hessians]).toEqual([true, true]);
  });

  it("takes others for other data", async () => {
    await calibrate("data");
    await appendFile(
      folder.path("model", "rows.jsonl"),
      `${JSON.stringify({ sample: [...(rows[0]?.sample ?? [])], timestep: 1 })}\n`,
    );
    expect((await calibrate("data")).cached).toBe(false);
  });

  it("does not trust a file that is damaged", async () => {
    const { path, fingerprint } = await calibrate("damaged");
    await truncate(path, 5000);
    const again = await calibrate("damaged");
    expect([again.cached, again.fingerprint]).toEqual([false, fingerprint]);
  });
});

describe("imported statistics", () => {
  it("are taken as they are for the model that they are of, and refused for another", async () => {
    const own = await calibrate("own", { output: folder.path("own.safetensors") });
    const taken = await calibrate("own", { source: own.path });
    expect(taken).toMatchObject({ path: own.path, fingerprint: own.fingerprint, source: { kind: "statistics" } });
    writeSmallModel(
      folder.path("other"),
      makeRows(24, (index) => index),
    );
    await writeFile(folder.path("other", "config.json"), "{}");
    const bytes = await readFile(folder.path("other", "model.safetensors"));
    bytes[bytes.length - 1] = 0x40;
    await writeFile(folder.path("other", "model.safetensors"), bytes);
    const job = smallJob(folder.path("other"), folder.path("own"), { source: own.path });
    await expect(calibrateModel(job, session)).rejects.toMatchObject({ code: "E_STATISTICS" });
  });
});

describe("outputs", () => {
  it("never replace what this program did not write", async () => {
    const output = folder.path("notes.safetensors");
    await writeFile(output, "mine");
    await expect(calibrate("outputs", { output })).rejects.toMatchObject({ code: "E_OUTPUT" });
    expect(await readFile(output, "utf8")).toBe("mine");
    expect((await calibrate("outputs", { output, force: true })).path).toBe(output);
  });
});

describe("what stops a calibration", () => {
  it.each([
    ["sample", "sampling"],
    ["calibrate", "rows.jsonl"],
  ] as const)("leaves nothing behind when it is aborted (%s)", async (phase, source) => {
    writeSmallModel(folder.path("stopped"), rows);
    writeScheduler(folder.path("stopped"));
    const controller = new AbortController();
    const reason = new Error("enough");
    const cache = `aborted-${phase}`;
    const phases: string[] = [];
    const job = smallJob(folder.path("stopped"), folder.path(cache), {
      ...(source === "sampling" ? { source, samples: 24 } : {}),
      signal: controller.signal,
      onProgress: (event) => {
        phases.push(event.phase);
        controller.abort(reason);
      },
    });
    await expect(calibrateModel(job, session)).rejects.toBe(reason);
    expect(phases[0]).toBe(phase);
    expect([...leftovers(cache), ...leftovers("stopped")]).toEqual([]);
  });

  it("is a NaN on its way, named by where it is", async () => {
    writeSmallModel(folder.path("nan"), rows);
    const data = waves(10);
    writeGraph(folder.path("nan", "model.onnx"), {
      inputs: { sample: ["FLOAT", "batch", 4, 6, 5], timestep: ["INT64", "batch"] },
      outputs: { noise_pred: ["FLOAT", "batch", 4, 6, 5] },
      initializers: { "root.weight": { dims: [2, 5], data } },
      nodes: [
        // Of what is below zero.
        { op: "Sqrt", in: ["sample"], out: ["roots"] },
        { op: "Transpose", in: ["root.weight"], out: ["turned"], attributes: { perm: [1, 0] } },
        { op: "MatMul", in: ["roots", "turned"], out: ["root_out"] },
        { op: "Identity", in: ["sample"], out: ["noise_pred"] },
      ],
    });
    const part = { name: "root.weight", dtype: "F32", shape: [2, 5], bytes: new Uint8Array(data.buffer) };
    await writeFile(folder.path("nan", "model.safetensors"), buildSafetensors([part]));
    const job = smallJob(folder.path("nan"), folder.path("cache-nan"));
    await expect(calibrateModel(job, session)).rejects.toMatchObject({
      code: "E_NONFINITE",
      details: { value: "roots" },
    });
    expect(leftovers("cache-nan")).toEqual([]);
  });

  it("is a thread that cannot start its kernels", async () => {
    const before = process.env["ARROWQUANT_KERNELS"];
    process.env["ARROWQUANT_KERNELS"] = "abacus";
    try {
      await expect(calibrate("kernels")).rejects.toMatchObject({ code: "E_KERNELS" });
    } finally {
      if (before === undefined) delete process.env["ARROWQUANT_KERNELS"];
      else process.env["ARROWQUANT_KERNELS"] = before;
    }
    expect(leftovers("kernels")).toEqual([]);
  });

  it("is a model without a graph", async () => {
    writeSmallModel(folder.path("lone"), rows);
    await rename(folder.path("lone", "model.onnx"), folder.path("lone", "moved"));
    const job = smallJob(folder.path("lone"), folder.path("cache-lone"));
    await expect(calibrateModel(job, session)).rejects.toMatchObject({ code: "E_GRAPH" });
  });

  it("is sampling without a scheduler", async () => {
    await expect(calibrate("no-scheduler", { source: "sampling" })).rejects.toMatchObject({ code: "E_CALIBRATION" });
  });
});
