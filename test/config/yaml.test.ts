import { describe, expect, it, vi } from "vitest";
import { MAX_CONFIG_BYTES, readYaml } from "../../dist/config/yaml.js";

const read = (text: string) => readYaml(text, "q.yaml", "file");
const messages = (text: string): string[] => read(text).problems.map(({ message }) => message);

describe("readYaml", () => {
  it("gives every key with its value and line", () => {
    const { given, problems } = read('# top\nbit_width: 4\n\n"method": rtn\ninclude:\n  - a\n  - b\n');
    expect(problems).toEqual([]);
    expect(given.map(({ key, value, detail }) => [key, value, detail])).toEqual([
      ["bit_width", 4, "q.yaml:2"],
      ["method", "rtn", "q.yaml:4"],
      ["include", ["a", "b"], "q.yaml:5"],
    ]);
    expect(given[2]?.placeOf([1]).text).toBe("q.yaml:7:5");
    expect(given[2]?.placeOf([9]).text).toBe("q.yaml:6:3");
    expect(given[0]?.placeOf([]).text).toBe("q.yaml:2:12");
  });

  it("reads JSON", () => {
    const { given, problems } = read('{"bit_width": 2,\n "layer_bit_widths": {"b": 4, "a": "none"}}');
    expect(problems).toEqual([]);
    expect(given.map(({ key, value }) => [key, value])).toEqual([
      ["bit_width", 2],
      ["layer_bit_widths", { b: 4, a: "none" }],
    ]);
  });

  it.each(["", "\n\n", "# only a comment\n", "---\n", "null\n"])("takes %j as no settings", (text) => {
    expect(read(text)).toEqual({ given: [], problems: [] });
  });

  it("keeps values by alias and says where the alias stands", () => {
    const { given } = read("include: &list [a]\nexclude: *list\n");
    expect(given[1]?.value).toEqual(["a"]);
    expect(given[1]?.placeOf([]).text).toBe("q.yaml:2:10");
  });

  it("names the key that stands twice, at its second place", () => {
    expect(messages("bit_width: 2\nmethod: rtn\nbit_width: 4\n")).toEqual([
      "q.yaml:3:1: the key bit_width stands twice",
    ]);
    expect(messages("layer_bit_widths:\n  a: 2\n  a: 4\n")).toEqual(["q.yaml:3:3: the key a stands twice"]);
  });

  it("refuses several documents", () => {
    expect(messages("bit_width: 2\n---\nbit_width: 4\n")[0]).toContain("q.yaml:2:1: several documents");
  });

  it.each(["- bit_width: 4\n", "bit_width\n", "[1, 2]", "4"])("refuses the root %j", (text) => {
    expect(messages(text)).toEqual(["q.yaml:1:1: the file must be a mapping of settings, `key: value`"]);
  });

  it("refuses keys that are no text, without a word to the process", () => {
    const warn = vi.spyOn(process, "emitWarning");
    expect(messages("? [a, b]\n: 1\n4: 2\n")).toEqual([
      "q.yaml:1:3: a key must be text, not [a, b]",
      "q.yaml:3:1: a key must be text, not 4",
    ]);
    expect(warn).not.toHaveBeenCalled();
    warn.mockRestore();
  });

  it.each(["bit_width: [4\n", "a: b: c\n", "\tbit_width: 4\n", "a: 'x\n", "a: @x\n"])(
    "says where the syntax of %j breaks",
    (text) => {
      const found = messages(text);
      expect(found.length).toBeGreaterThan(0);
      for (const message of found) expect(message).toMatch(/^q\.yaml:\d+:\d+: \S/);
    },
  );

  it("refuses tags it does not know", () => {
    expect(messages("bit_width: !!js/function 4\n")[0]).toMatch(/^q\.yaml:1:12: .*tag/);
  });

  it("refuses aliases that multiply", () => {
    const levels = ["a", "b", "c", "d", "e", "f", "g"];
    const text = levels
      .map(
        (name, level) =>
          `${name}: &${name} [${Array(10)
            .fill(level === 0 ? "x" : `*${levels[level - 1]}`)
            .join(",")}]`,
      )
      .join("\n");
    expect(messages(text)[0]).toMatch(/alias count/i);
  });

  it("refuses an alias of nothing", () => {
    expect(messages("include: *nothing\n")[0]).toMatch(/nothing/);
  });

  const indented = (levels: number): string =>
    Array.from({ length: levels }, (_, i) => `${" ".repeat(i)}a:\n`).join("");

  // Given to the parser, some of these end the whole process, not only the parse.
  it.each([
    ["brackets", `include: ${"[".repeat(20_000)}`],
    ["closed brackets", `include: ${"[".repeat(20_000)}${"]".repeat(20_000)}`],
    ["brackets on lines", "[\n".repeat(20_000)],
    ["braces", "{a: ".repeat(20_000)],
    ["dashes", `include:\n${"- ".repeat(20_000)}x`],
    ["dashes and tabs", "-\t".repeat(20_000)],
    ["questions", "? ".repeat(20_000)],
    ["colons", "a: ".repeat(20_000)],
    ["indentation", indented(1000)],
  ])("refuses deep nesting of %s", (_kind, text) => {
    expect(messages(text)).toEqual([expect.stringMatching(/^q\.yaml:\d+:1: nested deeper than 100 levels$/)]);
  });

  it("takes nesting and brackets within reason", () => {
    expect(messages(indented(90))).toEqual([]);
    const pairs = Array.from({ length: 500 }, (_, i) => `"block[s]{1,2}.${i}: -": 4`).join(", ");
    expect(messages(`{"layer_bit_widths": {${pairs}}}`)).toEqual([]);
    expect(messages(`include:\n${"  - 'a: [b] - c'\n".repeat(500)}`)).toEqual([]);
  });

  it("refuses a text above the limit before it parses", () => {
    expect(messages(`# ${"x".repeat(MAX_CONFIG_BYTES)}`)[0]).toContain(`the limit is ${MAX_CONFIG_BYTES}`);
  });
});
