/** Packages of npm that only checks need: a folder of their own beside this file, filled on first use. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runProcess } from "./process.js";

/**
 * Installs exact versions into the folder `name` beside this file, which is kept until they change.
 * @returns the folder, whose node_modules hold them
 * @throws where npm cannot get them
 */
export async function installPackages(name: string, packages: Readonly<Record<string, string>>): Promise<string> {
  const folder = fileURLToPath(new URL(name, import.meta.url));
  const manifest = `${JSON.stringify({ private: true, dependencies: packages }, null, 2)}\n`;
  if (isInstalled(folder, manifest)) return folder;
  // Filled under another name: what stands at the folder's own is complete.
  const filling = `${folder}-${process.pid}`;
  mkdirSync(filling);
  try {
    writeFileSync(join(filling, "package.json"), manifest);
    writeFileSync(join(filling, ".gitignore"), "*\n");
    const args = ["install", "--prefix", filling, "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"];
    const { exitCode, stderr } = await runProcess("npm", args);
    if (exitCode !== 0) throw new Error(`npm install failed (${exitCode}): ${stderr.trim().split("\n")[0]}`);
    // Another process may have been quicker.
    if (isInstalled(folder, manifest)) return folder;
    rmSync(folder, { recursive: true, force: true });
    renameSync(filling, folder);
    return folder;
  } finally {
    rmSync(filling, { recursive: true, force: true });
  }
}

function isInstalled(folder: string, manifest: string): boolean {
  const path = join(folder, "package.json");
  return existsSync(path) && readFileSync(path, "utf8") === manifest;
}
