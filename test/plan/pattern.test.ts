import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ArrowQuantError } from "../../dist/errors.js";
import { compilePattern, MAX_NAME_LENGTH, MAX_PATTERN_LENGTH } from "../../dist/plan/pattern.js";

const compile = (source: string) => compilePattern(source, "exclude (flag --exclude)");

function refusal(source: string): ArrowQuantError {
  try {
    compile(source);
  } catch (thrown) {
    return thrown as ArrowQuantError;
  }
  return expect.unreachable();
}

describe("a pattern", () => {
  it.each([
    "attn1\\.to_[qkv]",
    "^transformer_blocks\\.\\d+\\.ff",
    "\\.weight$",
    "(?:up|down)_blocks\\.(\\d+)\\.(?<kind>resnets|attentions)",
    "blocks\\.([0-2]|1\\d)\\.",
    "a{2}",
    "a{2,}",
    "a{1,2}b",
    "a{,2}",
    "a{",
    "x{y}",
    "]",
    "}",
    "a|",
    "|b",
    "()",
    "(|a)+",
    "(a*)*b",
    "(?:)",
    "",
    "\\bto\\b",
    "\\Bo",
    "[^.]+$",
    "[\\w.]+",
    "[a\\]b]",
    "[a-c\\-]",
    ".",
    "^.*$",
    "\\x61",
    "\\.",
    "\\/",
    "\\-",
    "(?:a|ab)(?:c|bcd)(?:d*)$",
    "a+?b",
    "a??",
    "(?:a?){3}a{3}",
    "^",
    "$",
    "^$",
    "\\0",
  ])("%j means what RegExp means", (source) => {
    const native = new RegExp(source);
    const pattern = compile(source);
    const names = [
      "",
      "a",
      "aa",
      "ab",
      "abcd",
      "abc",
      "aaab",
      "b",
      "]",
      "}",
      "{",
      "x{y}",
      "a{,2}",
      "é",
      "\n",
      "a\nb",
      "\u0001",
      "-",
      "/",
      "transformer_blocks.0.attn1.to_q.weight",
      "transformer_blocks.12.ff.net.0.proj.weight",
      "down_blocks.1.resnets.0.conv1",
      "blocks.1.norm.to_q",
      "blocks.9.to_q",
      "to.to_q",
      "model.to",
      "😀",
    ];
    for (const name of names) expect(pattern.test(name), JSON.stringify(name)).toBe(native.test(name));
  });

  it("means what RegExp means, whatever it is made of", () => {
    const { pattern } = fc.letrec<{ pattern: string; unit: string }>((tie) => ({
      unit: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom("a", "b", "\\.", ".", "\\d", "\\w", "[ab]", "[^a]", "[.\\d]", "^", "$", "\\b", "\\B", "0"),
        tie("pattern").map((inner) => `(${inner})`),
        tie("pattern").map((inner) => `(?:${inner})`),
      ),
      pattern: fc
        .array(fc.tuple(tie("unit"), fc.constantFrom("", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,1}?", "*?", "|")), {
          maxLength: 4,
        })
        .map((parts) =>
          // RegExp refuses to repeat `^`, `$` and `\b`.
          parts.map(([unit, quantifier]) => (/^(?:\^|\$|\\[bB])$/.test(unit) ? unit : unit + quantifier)).join(""),
        ),
    }));
    const name = fc.string({ unit: fc.constantFrom("a", "b", ".", "0", "-", "é"), maxLength: 10 });
    fc.assert(
      fc.property(pattern, name, (source, text) => {
        fc.pre(source.length <= 100);
        expect(compile(source).test(text)).toBe(new RegExp(source).test(text));
      }),
      { numRuns: 3000 },
    );
  });

  // Each takes RegExp longer than anyone waits; the suite's own time limit is the witness.
  it.each([
    "(a+)+$",
    "^(a|a)*$",
    "(a|aa)+$",
    "(\\w+\\.?)+$",
    "a*a*a*a*a*a*a*b",
    "(.*)(.*)(.*)(.*)(.*)x",
    "(?:a?){200}a{200}$",
  ])("%j ends on a long name", (source) => {
    const pattern = compile(source);
    expect(pattern.test(`${"a".repeat(MAX_NAME_LENGTH - 1)}!`)).toBe(false);
  });

  it.each([
    ["(", /not a regular expression/],
    ["[a", /not a regular expression/],
    ["a**", /not a regular expression/],
    ["*", /not a regular expression/],
    ["[]", /missing closing/],
    ["\\", /trailing backslash/],
    ["\\y", /invalid escape/],
    ["\\1(a)", /invalid escape/],
    ["(a)\\1", /invalid escape/],
    ["(?<x>a)\\k<x>", /invalid escape/],
    ["(?=a)b", /\(\?=/],
    ["^(?!.*norm)", /\(\?!/],
    ["(?<=a)b", /\(\?<=/],
    ["(?<!a)b", /\(\?<!/],
    ["(a{99}){99}", /invalid repeat count/],
    ["a{100000}", /invalid repeat count/],
    ["((((a{9}){9}){9}){9}){9}", /invalid repeat count/],
    ["x".repeat(MAX_PATTERN_LENGTH + 1), /513 characters, the limit is 512/],
  ])("refuses %j", (source, reason) => {
    const error = refusal(source);
    expect(error.code).toBe("E_PATTERN");
    expect(error.message).toMatch(/^exclude \(flag --exclude\): "/);
    expect(error.message).toMatch(reason);
    expect(error.hint).toContain("without lookaround and backreferences");
  });

  it("refuses names above the limit", () => {
    expect(() => compile("a").test("a".repeat(MAX_NAME_LENGTH + 1))).toThrow(
      expect.objectContaining({ code: "E_LIMIT" }),
    );
    expect(compile("a$").test("a".repeat(MAX_NAME_LENGTH))).toBe(true);
  });
});
