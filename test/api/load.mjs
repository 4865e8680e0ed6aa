/**
 * Scenarios that need a process of their own, since they look at all of its memory, threads and handles.
 *
 *     node --expose-gc load.mjs SCENARIO JSON-of-its-options
 *
 * prints one JSON document.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { ArrowQuant } from "../../dist/index.js";

const MIB = 1024 * 1024;

/** Threads of this process, as the kernel counts them. */
const threadCount = () => readdirSync("/proc/self/task").length;
const openFileCount = () => readdirSync("/proc/self/fd").length;
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Waits until `look` returns `expected`: threads that were told to end take a moment. A test's time-out is the end. */
async function settles(look, expected) {
  for (let value = look(); value !== expected; value = look()) await turn();
}

const SCENARIOS = {
  /** All jobs at once on one pool. */
  async together({ jobs, options }) {
    const warnings = [];
    process.on("warning", (warning) => warnings.push(warning.message));
    const order = [];
    const aq = new ArrowQuant(options);
    // One signal for all, as a server's shutdown has.
    const { signal } = new AbortController();
    await Promise.all(
      jobs.map(async (job, index) => {
        for await (const { type } of aq.run({ ...job, signal })) if (type !== "progress") order.push([index, type]);
        await aq
          .validate({ original: job.input, quantized: job.output, minAccuracy: 0.3, signal })
          .then(({ passed }) => {
            if (!passed) throw new Error(`job ${index} did not validate`);
          });
      }),
    );
    await aq.dispose();
    return { order, warnings, peakMib: process.resourceUsage().maxRSS / 1024 };
  },

  /** One pool after the other. */
  async instances({ count, job }) {
    const once = async () => {
      const aq = new ArrowQuant({ threads: 2 });
      await aq.quantize(job);
      await aq.dispose();
    };
    // What is loaded and started on first use stays.
    await once();
    await turn();
    const threads = threadCount();
    const files = openFileCount();
    const handles = process.getActiveResourcesInfo().length;
    for (let index = 0; index < count; index++) {
      if (index % 2 === 0) await once();
      else await new ArrowQuant().dispose();
    }
    await settles(threadCount, threads);
    await settles(openFileCount, files);
    return { handles: [handles, process.getActiveResourcesInfo().length] };
  },

  /** Many small jobs, ten at a time; needs `node --expose-gc`. */
  async thousand({ count, input, folder, config }) {
    const aq = new ArrowQuant({ threads: 2, memory: 320 * MIB });
    const samples = [];
    for (let done = 0; done < count; done += 10) {
      const outputs = Array.from({ length: 10 }, (_, index) => join(folder, `thousand-${index}.parquet`));
      await Promise.all(outputs.map((output) => aq.quantize({ input, output, config })));
      if ((done + 10) % 100 > 0) continue;
      // Finalizers of one collection free what the next one counts.
      gc();
      await turn();
      gc();
      const { heapUsed, external, rss } = process.memoryUsage();
      samples.push({ heldMib: (heapUsed + external) / MIB, residentMib: rss / MIB });
    }
    await aq.dispose();
    return { samples };
  },
};

const [, , scenario, options] = process.argv;
console.log(JSON.stringify(await SCENARIOS[scenario](JSON.parse(options))));
