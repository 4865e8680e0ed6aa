/** Child processes of the interop checks: the program as a user runs it, and Python. */
import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";

const PROGRAM = fileURLToPath(new URL("../../bin/arrowquant.js", import.meta.url));

export interface ProcessResult {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Rejects only where the command cannot be started. */
export function runProcess(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<ProcessResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("error", reject);
    child.on("close", (exitCode) => resolve({ exitCode, stdout, stderr }));
  });
}

/** Runs `arrowquant …`; anything but exit code 0 is an error with all it printed. */
export async function runArrowquant(args: readonly string[]): Promise<ProcessResult> {
  const result = await runProcess(process.execPath, [PROGRAM, ...args]);
  if (result.exitCode !== 0) {
    throw new Error(`arrowquant ${args.join(" ")} exited ${result.exitCode}\n${result.stderr}${result.stdout}`);
  }
  return result;
}

/** Runs a script of this folder, leaving no byte code behind, and parses the JSON that it prints. */
export async function runPython<T>(python: string, script: string, args: readonly string[]): Promise<T> {
  const path = fileURLToPath(new URL(script, import.meta.url));
  // numpy's products are short: its threads would spend their time, and everybody else's, waiting for each other.
  const env = { OPENBLAS_NUM_THREADS: "1" };
  const { exitCode, stdout, stderr } = await runProcess(python, ["-B", path, ...args], env);
  if (stdout === "") throw new Error(`${script} ${args.join(" ")} exited ${exitCode}\n${stderr}`);
  return JSON.parse(stdout) as T;
}

/** `run` over all items, as many at once as there are cores, results in order. */
export async function mapConcurrently<T, R>(items: readonly T[], run: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = new Array<R>(items.length);
  let next = 0;
  const takeItems = async (): Promise<void> => {
    while (next < items.length) {
      const index = next++;
      results[index] = await run(items[index] as T);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, takeItems));
  return results;
}
