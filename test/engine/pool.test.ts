/**
 * A thread that is stopped while it loads its modules takes the process down with it, now and then: so none is
 * stopped before it has loaded, or while it works. The threads here write down what they do.
 */
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { Session } from "../../dist/engine/session.js";
import type { KeepTask } from "../../dist/worker/messages.js";
import { folderMaker } from "../formats/folders.ts";

const make = folderMaker();
const main = new URL("../../dist/worker/main.js", import.meta.url);
const THREADS = 3;

/** A worker that takes its time to load on all threads but one, and a log of what its threads do. */
function loggingWorker() {
  const folder = make({ log: "", "source.bin": new Uint8Array(1 << 16) });
  const log = JSON.stringify(`${folder}/log`);
  writeFileSync(
    `${folder}/worker.mjs`,
    `import { appendFileSync, mkdirSync } from "node:fs";
    import runTask from ${JSON.stringify(main.href)};
    const pause = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
    try {
      mkdirSync(${JSON.stringify(`${folder}/first`)});
    } catch {
      pause(600);
    }
    appendFileSync(${log}, "loaded\\n");
    export default function runLogged(task) {
      appendFileSync(${log}, "begun\\n");
      pause(100);
      const reply = runTask(task);
      appendFileSync(${log}, "done\\n");
      return reply;
    }`,
  );
  const count = (what: string) => readFileSync(`${folder}/log`, "utf8").split(`${what}\n`).length - 1;
  return { workerUrl: pathToFileURL(`${folder}/worker.mjs`), source: `${folder}/source.bin`, count };
}

function keepTask(fd: number, path: string): KeepTask {
  const rows = { byteOffset: 0, dtype: "U8", rows: 64, cols: 1024, firstRow: 0, scales: null } as const;
  const source = { fd, path, tensorName: "a.weight", ...rows };
  return { kind: "keep", source, storedDtype: "U8", slabRows: 1, output: new ArrayBuffer(1 << 16) };
}

describe("threads", () => {
  it("are stopped only once they have loaded", async () => {
    const { workerUrl, source, count } = loggingWorker();
    const session = new Session({ threads: THREADS, workerUrl });
    const fd = openSync(source, "r");
    // The first thread to have loaded may be done with it before the others have.
    await session.run(keepTask(fd, source), [], new AbortController().signal);
    closeSync(fd);
    await session.dispose();
    expect(count("loaded")).toBe(THREADS);
  });

  it("outlive a task that is aborted, and nobody hears of the abort before they are done with it", async () => {
    const { workerUrl, source, count } = loggingWorker();
    await using session = new Session({ threads: THREADS, workerUrl });
    const fd = openSync(source, "r");
    const reason = new Error("enough");
    const stop = new AbortController();
    const tasks = Array.from({ length: 4 * THREADS }, () => session.run(keepTask(fd, source), [], stop.signal));
    const settled = Promise.allSettled(tasks);
    while (count("begun") === 0) await new Promise((resolve) => setImmediate(resolve));
    stop.abort(reason);
    expect(await settled).toEqual(tasks.map(() => ({ status: "rejected", reason })));
    expect(count("done")).toBe(count("begun"));
    // Those that no thread had taken are dropped.
    expect(count("begun")).toBeLessThan(tasks.length);
    const { output } = await session.run(keepTask(fd, source), [], new AbortController().signal);
    expect(output.byteLength).toBe(1 << 16);
    closeSync(fd);
    await session.dispose();
    expect(count("loaded")).toBe(THREADS);
  });

  it("are waited for by whoever closes what they read", async () => {
    const { workerUrl, source, count } = loggingWorker();
    await using session = new Session({ threads: THREADS, workerUrl });
    const fd = openSync(source, "r");
    const stop = new AbortController();
    const tasks = Array.from({ length: THREADS }, () => session.run(keepTask(fd, source), [], stop.signal));
    for (const task of tasks) task.catch(() => undefined);
    while (count("begun") === 0) await new Promise((resolve) => setImmediate(resolve));
    stop.abort(new Error("enough"));
    await session.settle(stop.signal);
    expect(count("done")).toBe(THREADS);
    closeSync(fd);
  });
});
