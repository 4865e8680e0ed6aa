/** A statistics thread: keeps the accumulators of its values while a pass lasts. */
import { parentPort, workerData } from "node:worker_threads";
import { toArrowQuantError } from "../../errors.js";
import { type Kernels, loadKernels } from "../../kernels/load.js";
import type { NumberedRequest, Reply, Request, ThreadSettings } from "./message.js";
import { ResultFile } from "./result-file.js";
import { allocateShared, Unit } from "./unit.js";

const { arenaBytes, outputPath } = workerData as ThreadSettings;

let kernels: Kernels | null = null;
let file: ResultFile | null = null;
let units: Unit[] = [];

function handle(request: Request): void {
  switch (request.kind) {
    case "open": {
      kernels ??= loadKernels({ maxBytes: arenaBytes });
      file ??= new ResultFile(outputPath);
      kernels.arena.reset();
      const shared = allocateShared(kernels, request.units);
      units = request.units.map((spec) => new Unit(kernels as Kernels, shared, spec, file as ResultFile));
      return;
    }
    case "add":
      for (const use of request.uses) units[use.unit]?.add(request, use);
      return;
    case "close":
      for (const unit of units) unit.close();
      units = [];
  }
}

parentPort?.on("message", ({ id, request }: NumberedRequest) => {
  let error: Reply["error"] = null;
  try {
    handle(request);
  } catch (thrown) {
    error = toArrowQuantError(thrown).toJSON();
  }
  parentPort?.postMessage({ id, error } satisfies Reply);
});
