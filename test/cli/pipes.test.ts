import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DIT, temporaryFolder, UNET } from "./models.js";
import { BINARY, documentOf, run, waitFor } from "./program.js";

/** Exit code of a pipe's first part. */
const FIRST_CODE = 'echo "$PIPESTATUS"';

/** A line of bash with the program as `$A`. */
function bash(line: string, env: Record<string, string> = {}) {
  const A = `${process.execPath} ${BINARY}`;
  return waitFor(
    spawn("bash", ["-c", line], { env: { ...process.env, A, UNET, DIT, ...env }, stdio: ["ignore", "pipe", "pipe"] }),
  );
}

describe("a closed pipe", () => {
  it("ends output quietly: exit 0, no message", async () => {
    const { stdout, stderr } = await bash(`$A inspect "$DIT" | head -1; ${FIRST_CODE}`);
    expect(stderr).toBe("");
    expect(stdout).toMatch(/^ {2}path .*\n0\n$/);
  });

  it("leaves the work and its exit code alone", async () => {
    const output = join(temporaryFolder(), "unet.parquet");
    const { stdout, stderr } = await bash(`$A quantize "$UNET" -o "$OUT" --method rtn --json | true; ${FIRST_CODE}`, {
      OUT: output,
    });
    expect({ stdout, stderr }).toEqual({ stdout: "0\n", stderr: "" });
    expect(existsSync(output)).toBe(true);
    const failed = await bash(`$A inspect /nowhere --json | true; ${FIRST_CODE}`);
    expect(failed.stdout).toBe("3\n");
  });

  it("of stderr hides neither results nor exit code", async () => {
    const { stdout } = await bash('{ $A inspect /nowhere --json; echo "$?"; } 2> >(true)');
    expect(stdout.trimEnd().endsWith("3")).toBe(true);
    expect(JSON.parse(stdout.trimEnd().slice(0, -1))).toMatchObject({ ok: false });
  });
});

describe.skipIf(!existsSync("/dev/full"))("a full disk behind stdout", () => {
  it("is a failure to write", async () => {
    const { stdout, stderr } = await bash('$A inspect "$DIT" > /dev/full; echo "$?"');
    expect(stdout).toBe("1\n");
    expect(stderr).toMatch(/^E_WRITE: .*standard output/);
  });
});

describe("output that is no terminal", () => {
  it("has no control sequences, not even with FORCE_COLOR, and is as wide as it needs", async () => {
    const { stdout, stderr } = await run(["inspect", UNET], { env: { FORCE_COLOR: "1", COLUMNS: "40" } });
    expect(stderr).toBe("");
    expect(stdout).not.toContain("\u001b");
    expect(stdout).toContain("up_blocks.2.resnets.1.time_emb_proj.weight");
  });
});

/** A terminal of its own, by script(1) of util-linux. */
function onTerminal(line: string, env: Record<string, string> = {}) {
  return bash(`script -qec "stty cols 100; ${line}" /dev/null`, env);
}
const hasScript = existsSync("/usr/bin/script");

describe.skipIf(!hasScript)("on a terminal", () => {
  const quantize = `$A quantize $UNET -o $OUT --method rtn`;
  const clean = { CI: "", NO_COLOR: "", TERM: "xterm-256color" };

  it("progress moves and is cleared away; tables are cut to the width", async () => {
    const { stdout } = await onTerminal(quantize, { ...clean, OUT: join(temporaryFolder(), "o.parquet") });
    expect(stdout).toMatch(/[⠋⠙⠹⠸]/);
    expect(stdout).toMatch(/quantizing unet.*█.*100 %/);
    const tables = stdout.slice(stdout.indexOf("Worst"));
    // biome-ignore lint/suspicious/noControlCharactersInRegex: terminal output is made of them
    const lines = tables.replace(/\u001b\[[0-9;]*m/g, "").split(/\r?\n/);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
    expect(lines.some((line) => line.includes("…"))).toBe(true);
  });

  it.each([
    ["CI", { CI: "true" }],
    ["a dumb terminal", { TERM: "dumb" }],
  ])("nothing moves in %s", async (_, env) => {
    const { stdout } = await onTerminal(quantize, { ...clean, ...env, OUT: join(temporaryFolder(), "o.parquet") });
    expect(stdout).not.toMatch(/[⠋⠙⠹⠸█]/);
    expect(stdout).toContain("Worst layers");
  });

  it("NO_COLOR takes the colours out", async () => {
    const { stdout } = await onTerminal("$A inspect $UNET", { ...clean, NO_COLOR: "1" });
    // biome-ignore lint/suspicious/noControlCharactersInRegex: terminal output is made of them
    expect(stdout).not.toMatch(/\u001b\[\d+m/);
    const colored = await onTerminal("$A inspect $UNET", clean);
    expect(colored.stdout).toContain("\u001b[1m");
  });

  it("--quiet leaves the result alone", async () => {
    const { stdout } = await onTerminal(`${quantize} --quiet`, { ...clean, OUT: join(temporaryFolder(), "o.parquet") });
    expect(stdout).not.toMatch(/[⠋⠙⠹⠸█]/);
    expect(stdout).toContain("Worst layers");
  });
});

describe("start-up", () => {
  it("loads neither parser, tables, zod nor progress for --version and --help", async () => {
    const hook = "data:text/javascript,export async function load(u,c,n){process._rawDebug('loads '+u);return n(u,c)}";
    const preload = `data:text/javascript,import{register}from"node:module";register(${JSON.stringify(hook)})`;
    const loads = async (...args: string[]): Promise<string[]> => {
      const line = ["--no-warnings", "--import", preload, BINARY, ...args];
      const { stderr, code } = await waitFor(spawn(process.execPath, line, { stdio: ["ignore", "pipe", "pipe"] }));
      expect(code).toBe(0);
      return stderr.split("\n").filter((text) => text.startsWith("loads "));
    };
    const heavy = (lines: string[]) =>
      lines.filter((text) => /node_modules/.test(text) && !text.includes("fastest-levenshtein"));
    for (const line of [["--version"], ["--help"], ["quantize", "--help"]]) {
      expect(heavy(await loads(...line))).toEqual([]);
    }
    // The same look at a command does see what it loads.
    const loaded = heavy(await loads("inspect", UNET)).join();
    for (const library of ["commander", "zod"]) expect(loaded).toContain(`/${library}/`);
    for (const library of ["ora", "cli-progress", "apache-arrow", "parquet-wasm"]) {
      expect(loaded).not.toContain(`/${library}/`);
    }
  });

  it("is one document even where the arguments are hostile", async () => {
    const ended = await run(["quantize", "\u001b[31mred", "-o", "x.parquet", "--json"]);
    expect(ended.code).toBe(3);
    expect(documentOf(ended)).toMatchObject({ ok: false });
    expect(ended.stderr).not.toContain("\u001b");
  });
});
