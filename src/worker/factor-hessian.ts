/** Factors a layer's Hessian into a file that the workers of its rows read. */
import { closeSync, openSync, writeSync } from "node:fs";
import { writeError } from "../io/output.js";
import { HessianFactor } from "../kernels/factor.js";
import { withPlace } from "./calibrated-chunk.js";
import { threadKernels } from "./kernels.js";
import type { FactorReply, FactorTask } from "./messages.js";

export function factorHessian(task: FactorTask): FactorReply {
  const factor = new HessianFactor(threadKernels(), task.cols);
  withPlace(task.hessian, (read) => read(0, factor.hessian()));
  const { damp, equalizationScales } = task;
  if (!factor.factor({ damp, order: task.order === "activation", equalizationScales })) {
    return { isPositiveDefinite: false, order: new Int32Array(0), deadColumns: new Uint8Array(0) };
  }
  writeFactor(factor, task.outputPath);
  return { isPositiveDefinite: true, ...factor.columnOrder() };
}

function writeFactor(factor: HessianFactor, path: string): void {
  let fd: number | null = null;
  try {
    fd = openSync(path, "wx");
    const file = fd;
    factor.forEachPanel((panel) => {
      const bytes = new Uint8Array(panel.buffer, panel.byteOffset, panel.byteLength);
      for (let done = 0; done < bytes.byteLength; ) done += writeSync(file, bytes, done);
    });
  } catch (thrown) {
    throw writeError(thrown, path);
  } finally {
    if (fd !== null) closeSync(fd);
  }
}
