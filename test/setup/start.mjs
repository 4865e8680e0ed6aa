/** `npm start`: quantizes the small real model that ships with the project, validates it and shows the result. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const model = "test/models/unet-mnist";
const folder = mkdtempSync(join(tmpdir(), "arrowquant-"));
const output = join(folder, "unet-mnist-int4.parquet");

function arrowquant(...args) {
  console.log(`\n$ arrowquant ${args.join(" ")}`);
  const { status } = spawnSync(process.execPath, [join(root, "bin/arrowquant.js"), ...args], {
    cwd: root,
    stdio: "inherit",
  });
  if (status !== 0) process.exitCode = status ?? 1;
  return status === 0;
}

try {
  arrowquant("quantize", model, "-o", output) && arrowquant("validate", model, output);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
