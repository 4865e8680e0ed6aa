/** The real program as a child process. */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

export const BINARY = fileURLToPath(new URL("../../bin/arrowquant.js", import.meta.url));

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Settings of whoever runs the tests must not change them. */
function cleanEnvironment(extra: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^(ARROW_?QUANT|NO_COLOR|FORCE_COLOR|CI$)/.test(name));
  return { ...Object.fromEntries(kept), ...extra };
}

export function start(args: readonly string[], options: RunOptions = {}): ChildProcess {
  return spawn(process.execPath, [BINARY, ...args], {
    cwd: options.cwd,
    env: cleanEnvironment(options.env),
    stdio: ["ignore", "pipe", "pipe"],
  });
}

export function waitFor(child: ChildProcess): Promise<Ended> {
  let stdout = "";
  let stderr = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

export function run(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  return waitFor(start(args, options));
}

/** The one document on stdout; throws where there is anything else. */
export function documentOf(ended: Ended): Record<string, unknown> & {
  ok: boolean;
  command: string;
  error: { code: string; message: string; hint: string | null; details: Record<string, unknown> } | null;
  layers: Record<string, unknown>[];
  summary: Record<string, unknown> | null;
  warnings: string[];
  output: string | null;
} {
  return JSON.parse(ended.stdout) as ReturnType<typeof documentOf>;
}
