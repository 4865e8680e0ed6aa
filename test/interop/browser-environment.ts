/**
 * A headless browser and the runtime of the web: `.browser` beside this file, filled by npm on first use and kept until
 * the versions below change.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isCi } from "./environment.js";
import { runProcess } from "./process.js";

const FOLDER = fileURLToPath(new URL(".browser", import.meta.url));

/** Chromium as a package of npm, for machines without a browser; its driver; ONNX Runtime as web pages load it. */
const PACKAGES = {
  "@sparticuz/chromium": "147.0.0",
  "onnxruntime-web": "1.30.0",
  "puppeteer-core": "24.43.1",
};

/** The folder whose node_modules hold them; null, with the reason printed, where they cannot be had. With CI=true that is an error. */
export async function prepareBrowser(): Promise<string | null> {
  try {
    return await install();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (isCi()) throw new Error(`CI is set, so the browser checks must run: ${reason}`, { cause: error });
    console.warn(`browser checks skipped: ${reason}`);
    return null;
  }
}

async function install(): Promise<string> {
  if (process.platform !== "linux" || process.arch !== "x64") throw new Error("the browser is built for Linux on x64");
  const manifest = `${JSON.stringify({ private: true, dependencies: PACKAGES }, null, 2)}\n`;
  if (isInstalled(manifest)) return FOLDER;
  // Filled under another name: what stands at FOLDER is complete.
  const filling = `${FOLDER}-${process.pid}`;
  mkdirSync(filling);
  try {
    writeFileSync(join(filling, "package.json"), manifest);
    writeFileSync(join(filling, ".gitignore"), "*\n");
    const args = ["install", "--prefix", filling, "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"];
    const { exitCode, stderr } = await runProcess("npm", args);
    if (exitCode !== 0) throw new Error(`npm install failed (${exitCode}): ${stderr.trim().split("\n").at(-1) ?? ""}`);
    // Another process may have been quicker.
    if (isInstalled(manifest)) return FOLDER;
    rmSync(FOLDER, { recursive: true, force: true });
    renameSync(filling, FOLDER);
    return FOLDER;
  } finally {
    rmSync(filling, { recursive: true, force: true });
  }
}

function isInstalled(manifest: string): boolean {
  const path = join(FOLDER, "package.json");
  return existsSync(path) && readFileSync(path, "utf8") === manifest;
}
