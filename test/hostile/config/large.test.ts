/** Files below the size limit and full to the brim: refused in linear time. The suite's time limit is the witness. */
import { describe, expect, it } from "vitest";
import { resolveConfig } from "../../../dist/config/resolve.js";

/** About 700 kB of text. */
function repeat(item: (index: number) => string, bytes = 700_000): string {
  const items: string[] = [];
  for (let index = 0, length = 0; length < bytes; index++) {
    items.push(item(index));
    length += (items.at(-1) as string).length;
  }
  return items.join("");
}

describe("a configuration full of", () => {
  it.each([
    ["keys", repeat((index) => `k${index}: 1\n`), /^\d{5,} problems .*unknown key "k0"/s],
    ["one key", repeat(() => "a: 1\n"), /x\.yaml:2:1: the key a stands twice/],
    ["keys below a key", `a: {${repeat((index) => `k${index}: 1, `)}}`, /unknown key "a"/],
    ["aliases", `a: &a 1\nb: [${repeat(() => "*a,")}]`, /^x\.yaml:2:305: the alias count passes the limit of 100$/],
    ["aliases of aliases", `a: &a [1]\nb: &b [${repeat(() => "*a,")}]\nc: *b`, /alias count/],
    ["anchors", repeat((index) => `k${index}: &a${index} 1\n`), /unknown key "k0"/],
    ["wrong values", `layer_bit_widths: {${repeat((index) => `a${index}: 7,`)}}`, /expected 2, 3, 4, 5, 6, 8 or none/],
    ["syntax errors", repeat(() => '"\n', 300_000), /^\d{5,} problems/],
  ])("%s", async (_, text, said) => {
    await expect(resolveConfig({ file: { path: "x.yaml", text } })).rejects.toThrow(
      expect.objectContaining({ code: "E_CONFIG", message: expect.stringMatching(said) }),
    );
  });
});
