#!/usr/bin/env node
import { existsSync } from "node:fs";

const main = new URL("../dist/cli/main.js", import.meta.url);
if (existsSync(main)) {
  process.exitCode = await (await import(main.href)).main(process.argv);
} else {
  console.error("E_INTERNAL: arrowquant is not built: there is no dist/ in this checkout");
  console.error("  hint: npm ci && npm run build");
  process.exitCode = 1;
}
