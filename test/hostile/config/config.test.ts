/** Configuration and job files from strangers: a clear error each, in bounded time and memory, never a stack. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { temporaryFolder, wave, writeModel } from "../../cli/models.js";
import { documentOf, run } from "../../cli/program.js";

const folder = temporaryFolder();

/** Nine levels of nine references each: 9^9 values once expanded. */
function billionLaughs(): string {
  const names = "abcdefghi".split("");
  const lines = names.map((name, level) => {
    const before = names[level - 1];
    const items = Array.from({ length: 9 }, () => (before === undefined ? "lol" : `*${before}`));
    return `${name}: &${name} [${items.join(", ")}]`;
  });
  return `${lines.join("\n")}\ninclude: *i\n`;
}

const HOSTILE: [string, string | Buffer][] = [
  ["aliases that explode", billionLaughs()],
  ["an alias of itself", "include: &a [*a]\n"],
  ["nesting without end", "include: ".padEnd(200_000, "[")],
  ["nesting by indentation", Array.from({ length: 3000 }, (_, depth) => `${" ".repeat(depth)}a:`).join("\n")],
  ["more than a megabyte", `include: [${"x, ".repeat(600_000)}x]\n`],
  ["a key twice", "bit_width: 4\nbit_width: 8\n"],
  ["two documents", "bit_width: 4\n---\nbit_width: 8\n"],
  ["a list", "- bit_width\n"],
  ["a tag that runs code elsewhere", 'include: !!python/object/apply:os.system ["true"]\n'],
  ["a prototype", "__proto__: {bit_width: 2}\n"],
  ["a constructor", "constructor: {prototype: {bit_width: 2}}\n"],
  ["bytes that are no UTF-8", Buffer.from([0x62, 0x69, 0x74, 0x3a, 0x20, 0xff, 0xfe, 0xc3, 0x28])],
  ["NUL bytes", Buffer.alloc(5000)],
  ["UTF-16", Buffer.from("bit_width: 4\n", "utf16le")],
  ["escape sequences", 'bit_width: "\\e[31mred\\e[0m"\n'],
  ["a number beyond all bounds", "bit_width: 1e999\n"],
  ["a fraction", "group_size: 32.5\n"],
  ["a date", "group_size: 2024-01-01\n"],
  ["a pattern of megabytes", `include: ['${"a".repeat(100_000)}']\n`],
  ["a key of megabytes", `${"k".repeat(900_000)}: 1\n`],
  ["a merge of nothing", "<<: 7\nbit_width: 4\n"],
  ["tabs for indentation", "layer_bit_widths:\n\tattn: 8\n"],
  ["an unclosed quote", 'method: "rtn\n'],
];

/** The job-file shape around each, where the text can be nested; and the text as it is. */
function write(name: string, content: string | Buffer, ending: string): string {
  const path = join(folder, `${name.replaceAll(/[^a-z]/gi, "-")}.${ending}`);
  writeFileSync(path, content);
  return path;
}

describe.each(HOSTILE)("%s", (name, content) => {
  it("as a configuration ends with 2", async () => {
    const ended = await run(["config", "show", "--config", write(name, content, "yaml"), "--json"]);
    expect({ code: ended.code, signal: ended.signal }).toEqual({ code: 2, signal: null });
    expect(documentOf(ended)).toMatchObject({
      ok: false,
      error: { code: expect.stringMatching(/^E_(CONFIG|PATTERN)$/) },
    });
    expect(ended.stderr).not.toMatch(/\n\s+at /);
    expect(ended.stderr).not.toContain("\u001b");
    // An error is for reading: it repeats no megabytes.
    expect(ended.stderr.length).toBeLessThan(20_000);
  });

  it("as a job file ends with 2", async () => {
    const ended = await run(["batch", write(name, content, "jobs.yaml"), "--json"]);
    expect({ code: ended.code, signal: ended.signal }).toEqual({ code: 2, signal: null });
    expect(documentOf(ended)).toMatchObject({
      ok: false,
      error: { code: expect.stringMatching(/^E_(CONFIG|JOB_FILE)$/) },
    });
    expect(ended.stderr).not.toMatch(/\n\s+at /);
    expect(ended.stderr.length).toBeLessThan(20_000);
  });
});

describe("environment variables", () => {
  it.each([
    [{ ARROW_QUANT_BIT_WIDTH: "four" }, /ARROW_QUANT_BIT_WIDTH.*2, 3, 4, 5, 6 or 8/],
    [{ ARROW_QUANT_BIT_WIDTH: "4; rm -rf /" }, /ARROW_QUANT_BIT_WIDTH/],
    [{ ARROW_QUANT_MIN_ACCURACY: "NaN" }, /ARROW_QUANT_MIN_ACCURACY/],
    [{ ARROW_QUANT_NUM_THREADS: "1e9" }, /ARROW_QUANT_NUM_THREADS/],
    [{ ARROW_QUANT_BIT_WIDHT: "4" }, /did you mean ARROW_QUANT_BIT_WIDTH/],
  ])("%j is refused by its name", async (env, said) => {
    const { code, stderr } = await run(["config", "show"], { env: env as Record<string, string> });
    expect(code).toBe(2);
    expect(stderr).toMatch(/^E_CONFIG: /);
    expect(stderr).toMatch(said);
  });
});

describe("a pattern that takes exponential time", () => {
  it("does not hang the program on a hostile tensor name", async () => {
    const model = writeModel(join(folder, "name.safetensors"), [
      { name: `${"a".repeat(60)}!`, shape: [32, 64], values: wave },
      { name: "plain.weight", shape: [32, 64], values: wave },
    ]);
    const line = ["quantize", model, "-o", join(folder, "o.parquet"), "--modality", "image", "--exclude", "^(a+)+$"];
    const ended = await run([...line, "--dry-run", "--json"]);
    // Either refused or matched in time: the test's own time limit is the judge.
    expect([0, 2]).toContain(ended.code);
    expect(documentOf(ended)).toHaveProperty("ok");
  });
});
