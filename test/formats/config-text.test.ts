import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { editConfigText } from "../../dist/formats/config-text.js";

const key = fc.string({ unit: "grapheme" }).filter((name) => name !== "__proto__");
const config = fc.dictionary(key, fc.jsonValue(), { noNullPrototype: true });

describe("editConfigText", () => {
  it("sets and removes what it is told to and nothing else", () => {
    fc.assert(
      fc.property(config, config, fc.array(key), fc.constantFrom(undefined, 2), (before, set, gone, space) => {
        const removed = Object.fromEntries(gone.map((name) => [name, undefined]));
        const edited = editConfigText(JSON.stringify(before, null, space), { ...removed, ...set });
        const kept = Object.entries(before).filter(([name]) => !(name in removed) || name in set);
        expect(JSON.parse(edited)).toEqual(JSON.parse(JSON.stringify({ ...Object.fromEntries(kept), ...set })));
      }),
    );
  });

  it("returns a text as it is where nothing changes", () => {
    const text = '{"b" : 1.50,\r\n "a":[ ]}';
    expect(editConfigText(text, {})).toBe(text);
    expect(editConfigText(text, { other: undefined })).toBe(text);
  });

  it("keeps what JavaScript has no number for", () => {
    const text = '{"n": 12345678901234567890.10, "inf": -Infinity, "nan":NaN, "old": 1}';
    expect(editConfigText(text, { old: undefined, new: { deep: [1] } })).toBe(
      '{\n  "n": 12345678901234567890.10,\n  "inf": -Infinity,\n  "nan":NaN,\n  "new": {\n    "deep": [\n      1\n    ]\n  }\n}\n',
    );
  });

  it("makes an object of nothing", () => {
    expect(editConfigText(null, { a: 1 })).toBe('{\n  "a": 1\n}\n');
    expect(editConfigText('{"a":1}', { a: undefined })).toBe("{}\n");
  });

  it.each(["[]", "{", '{"a":1,"a":2}', '{"a":1} x'])("refuses %s", (text) => {
    expect(() => editConfigText(text, { b: 1 })).toThrow(/config\.json/);
  });
});
