import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArrowQuantError } from "../../dist/errors.js";
import { type JsonValue, MAX_JSON_DEPTH, parseJson, quoteName } from "../../dist/formats/json.js";

/** Maps as plain objects, so that values compare with JSON.parse's. */
function plain(value: JsonValue): unknown {
  if (value instanceof Map) {
    const object = Object.create(null) as Record<string, unknown>;
    for (const [key, member] of value) object[key] = plain(member as JsonValue);
    return object;
  }
  return Array.isArray(value) ? value.map((element) => plain(element as JsonValue)) : value;
}

function parse(text: string | Uint8Array): unknown {
  return plain(parseJson(typeof text === "string" ? Buffer.from(text, "utf8") : text, "text"));
}

/** JSON.parse with objects that have no prototype, as `plain` makes them. */
function reference(text: string): unknown {
  return JSON.parse(text, (_, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.assign(Object.create(null), value)
      : value,
  );
}

type Outcome = { readonly value: unknown } | { readonly code: string };

function outcome(text: string): Outcome {
  try {
    return { value: parse(text) };
  } catch (error) {
    if (!(error instanceof ArrowQuantError)) throw error;
    return { code: error.code };
  }
}

function referenceOutcome(text: string): Outcome {
  try {
    return { value: reference(text) };
  } catch {
    return { code: "E_JSON" };
  }
}

const whitespace = fc.string({ unit: fc.constantFrom(" ", "\t", "\n", "\r"), maxLength: 3 });
const jsonText = fc.jsonValue({ stringUnit: "binary" }).map((value) => JSON.stringify(value));
// Keys that JavaScript's objects treat as special are tested one by one below.
const isWellFormed = (text: string): boolean => Buffer.from(text).toString() === text;
const isOrdinary = (text: string): boolean => !text.includes("__proto__");

describe("what JSON.parse reads", () => {
  it("is read alike", () => {
    fc.assert(
      fc.property(jsonText.filter(isOrdinary), (text) => {
        expect(parse(text)).toEqual(reference(text));
      }),
    );
  });

  it("is read alike with whitespace between tokens and every character escaped", () => {
    fc.assert(
      fc.property(fc.jsonValue(), whitespace, (value, space) => {
        const text = JSON.stringify(value, null, 1).replaceAll("\n", `${space}\n`);
        fc.pre(isOrdinary(text));
        expect(parse(`${space}${text}${space}`)).toEqual(reference(text));
      }),
    );
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (value) => {
        const units = Array.from({ length: value.length }, (_, index) => value.charCodeAt(index));
        const escaped = units.map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`).join("");
        expect(parse(`"${escaped}"`)).toBe(value);
      }),
    );
  });

  it("is the upper bound: both say the same, or this one refuses for a rule of its own", () => {
    const fragment = fc.constantFrom(
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      '"',
      '"a"',
      '"b":',
      "1",
      "-",
      "0",
      "01",
      "1.5",
      "1e5",
      ".",
      "e",
      "+",
      "true",
      "null",
      "NaN",
      " ",
      "\n",
      "\\",
      "\\n",
      "\\u0061",
      "\\ud800",
      "é",
      "\u0001",
      "\ufeff",
    );
    const soup = fc.array(fragment, { maxLength: 12 }).map((parts) => parts.join(""));
    const mutated = fc.tuple(jsonText, fc.nat(), fragment).map(([text, at, part]) => {
      const cut = at % (text.length + 1);
      return text.slice(0, cut) + part + text.slice(cut + 1);
    });
    fc.assert(
      fc.property(
        fc.oneof(soup, mutated).filter((text) => isWellFormed(text) && isOrdinary(text)),
        (text) => {
          const ours = outcome(text);
          const theirs = referenceOutcome(text);
          if ("value" in ours) expect(theirs).toEqual(ours);
          else if ("value" in theirs && ours.code === "E_JSON") expect(text).toMatch(/\\ud[89a-f]/i);
          else if ("value" in theirs) expect(ours.code).toBe("E_DUPLICATE");
        },
      ),
      { numRuns: 3000 },
    );
  });
});

describe("what JSON.parse lets pass", () => {
  it.each([
    ['{"a":1,"a":2}', "E_DUPLICATE", 'key "a" stands twice'],
    ['{"a":1,"\\u0061":2}', "E_DUPLICATE", 'key "a"'],
    ['[{"b":{"":0,"":0}}]', "E_DUPLICATE", 'key ""'],
    ['"\\ud800"', "E_JSON", "surrogate"],
    ['"\\udc00\\ud800"', "E_JSON", "surrogate"],
    ['"\\ud800\\u0041"', "E_JSON", "surrogate"],
    [`${"[".repeat(MAX_JSON_DEPTH + 1)}${"]".repeat(MAX_JSON_DEPTH + 1)}`, "E_LIMIT", `deeper than ${MAX_JSON_DEPTH}`],
    [`${'{"a":'.repeat(100_000)}`, "E_LIMIT", "deeper than"],
  ])("%.40s is refused", (text, code, says) => {
    expect(() => parse(text)).toThrow(expect.objectContaining({ code, message: expect.stringContaining(says) }));
  });

  it("nests as deep as the limit", () => {
    const text = `${"[".repeat(MAX_JSON_DEPTH)}${"]".repeat(MAX_JSON_DEPTH)}`;
    expect(parse(text)).toEqual(reference(text));
  });
});

describe("bytes", () => {
  it.each([
    ["a lone continuation byte", [0x22, 0x80, 0x22]],
    ["an overlong slash", [0x22, 0xc0, 0xaf, 0x22]],
    ["an encoded surrogate", [0x22, 0xed, 0xa0, 0x80, 0x22]],
    ["a character beyond U+10FFFF", [0x22, 0xf4, 0x90, 0x80, 0x80, 0x22]],
    ["a cut character", [0x22, 0xe2, 0x82, 0x22]],
  ])("%s is no UTF-8", (_, bytes) => {
    expect(() => parse(Uint8Array.from(bytes))).toThrow(expect.objectContaining({ code: "E_UTF8" }));
  });

  it("of a view into a larger buffer are the view's alone", () => {
    const around = Buffer.from('xx{"a":[1,"é"]}yy', "utf8");
    expect(parse(around.subarray(2, around.length - 2))).toEqual(reference('{"a":[1,"é"]}'));
  });

  it("are counted in the errors", () => {
    expect(() => parse('{"é":?}')).toThrow(expect.objectContaining({ details: { source: "text", byteOffset: 6 } }));
  });
});

describe("keys", () => {
  it("that JavaScript's objects treat as special are keys like any other", () => {
    const value = parseJson(Buffer.from('{"__proto__":1,"constructor":2,"toString":3}'), "text");
    expect([...(value as Map<string, number>)]).toEqual([
      ["__proto__", 1],
      ["constructor", 2],
      ["toString", 3],
    ]);
  });
});

describe("Python's non-finite numbers", () => {
  const text = Buffer.from('{"time_step_limit":[0.0,Infinity,-Infinity,NaN]}');

  it("are no JSON", () => {
    expect(() => parseJson(text, "text")).toThrow(expect.objectContaining({ code: "E_JSON" }));
  });

  it("are read where they are allowed", () => {
    expect(plain(parseJson(text, "text", { allowNonFinite: true }))).toEqual(
      Object.assign(Object.create(null), { time_step_limit: [0, Infinity, -Infinity, NaN] }),
    );
  });
});

describe("a name in a message", () => {
  it("is short and has no control characters", () => {
    expect(quoteName("a\u001b[31m\n")).toBe('"a\\u001b[31m\\n"');
    expect(quoteName("x".repeat(1e6)).length).toBeLessThan(250);
  });
});
