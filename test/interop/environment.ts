/**
 * The Python environment of the interop checks: `.venv` beside this file, made on first use from
 * requirements.txt and kept until that file (or the Python that made it) changes.
 */
import { createHash } from "node:crypto";
import { closeSync, existsSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { runProcess } from "./process.js";

const REQUIREMENTS = fileURLToPath(new URL("requirements.txt", import.meta.url));
const VENV = fileURLToPath(new URL(".venv", import.meta.url));
/** One lock per checkout, outside of it so that a killed run leaves no file among the sources. */
const LOCK = join(tmpdir(), `arrowquant-interop-${hashText(VENV).slice(0, 16)}.lock`);
const STAMP = `${VENV}/requirements.sha256`;
const WINDOWS = process.platform === "win32";
const SYSTEM_PYTHON = WINDOWS ? "python" : "python3";
const VENV_PYTHON = WINDOWS ? `${VENV}/Scripts/python.exe` : `${VENV}/bin/python`;

/** How often a process looks whether another one has finished installing. */
const LOCK_POLL_MS = 200;

export type PythonEnvironment =
  | { readonly python: string; readonly skipReason: null }
  | { readonly python: null; readonly skipReason: string };

/**
 * Finds or makes the environment. Without a usable Python it gives the reason for skipping, which
 * is printed; with CI=true that is an error instead.
 */
export async function preparePython(): Promise<PythonEnvironment> {
  try {
    return { python: await installPython(), skipReason: null };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (isCi()) throw new Error(`CI is set, so the interop checks must run: ${reason}`, { cause: error });
    console.warn(`interop checks skipped: ${reason}`);
    return { python: null, skipReason: reason };
  }
}

export function isCi(): boolean {
  return (process.env["CI"] ?? "") !== "" && process.env["CI"] !== "false";
}

async function installPython(): Promise<string> {
  const version = await runProcess(SYSTEM_PYTHON, ["--version"]).catch(() => null);
  if (version === null || version.exitCode !== 0) throw new Error(`no ${SYSTEM_PYTHON} on this machine`);
  const stamp = hashText(readFileSync(REQUIREMENTS, "utf8") + version.stdout);
  if (isInstalled(stamp)) return VENV_PYTHON;
  await holdLock();
  try {
    if (isInstalled(stamp)) return VENV_PYTHON;
    rmSync(VENV, { recursive: true, force: true });
    await runSetupStep(SYSTEM_PYTHON, ["-m", "venv", VENV]);
    await runSetupStep(VENV_PYTHON, [
      ...["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"],
      ...["--only-binary=:all:", "--requirement", REQUIREMENTS],
    ]);
    writeFileSync(STAMP, stamp);
    return VENV_PYTHON;
  } finally {
    rmSync(LOCK, { force: true });
  }
}

function hashText(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

function isInstalled(stamp: string): boolean {
  return existsSync(VENV_PYTHON) && existsSync(STAMP) && readFileSync(STAMP, "utf8") === stamp;
}

async function runSetupStep(command: string, args: readonly string[]): Promise<void> {
  const { exitCode, stderr } = await runProcess(command, args);
  if (exitCode !== 0) {
    const lastLine = stderr.trim().split("\n").at(-1) ?? "";
    throw new Error(`${command} ${args.slice(0, 3).join(" ")} failed (${exitCode}): ${lastLine}`);
  }
}

/** Takes the lock file, which names the process that holds it; a dead holder's lock is taken over. */
async function holdLock(): Promise<void> {
  for (;;) {
    try {
      const handle = openSync(LOCK, "wx");
      writeFileSync(handle, String(process.pid));
      closeSync(handle);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    if (isLockStale()) rmSync(LOCK, { force: true });
    else await wait(LOCK_POLL_MS);
  }
}

function isLockStale(): boolean {
  try {
    const holder = Number(readFileSync(LOCK, "utf8"));
    // Between creation and the writing of its id a lock is empty: give its holder that moment.
    if (holder === 0) return Date.now() - statSync(LOCK).mtimeMs > 10 * LOCK_POLL_MS;
    process.kill(holder, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH";
  }
}
