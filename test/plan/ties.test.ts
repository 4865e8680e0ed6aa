import { describe, expect, it } from "vitest";
import type { ArrowQuantError } from "../../dist/errors.js";
import { tieLayers } from "../../dist/plan/ties.js";

/** The tied sets, each as its names. */
function setsOf(names: readonly string[], rule: "qkv" | "none", patterns: readonly string[] = []): string[][] {
  const ties = tieLayers(names, rule, patterns);
  return [...new Set(ties.values())].map((tie) => [...ties.keys()].filter((name) => ties.get(name) === tie));
}

describe("tieLayers", () => {
  it.each([
    ["diffusers", ["blocks.0.attn1.to_q.weight", "blocks.0.attn1.to_k.weight", "blocks.0.attn1.to_v.weight"]],
    ["joint attention", ["b.attn.add_q_proj.weight", "b.attn.add_k_proj.weight", "b.attn.add_v_proj.weight"]],
    ["transformers", ["layers.3.self_attn.q_proj", "layers.3.self_attn.k_proj", "layers.3.self_attn.v_proj"]],
    ["words", ["mid.attention.query.weight", "mid.attention.key.weight", "mid.attention.value.weight"]],
    ["GGUF", ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"]],
    ["Lumina", ["layers.0.attention.wq.weight", "layers.0.attention.wk.weight", "layers.0.attention.wv.weight"]],
    ["Wan", ["blocks.0.cross_attn.q.weight", "blocks.0.cross_attn.k.weight", "blocks.0.cross_attn.v.weight"]],
    ["PixArt", ["blocks.0.cross_attn.q_linear.weight", "blocks.0.cross_attn.kv_linear.weight"]],
  ])("ties query, key and value of one attention: %s", (_, names) => {
    const others = names.map((name) => name.replace(/[03]\.|mid\.|b\./, "7."));
    const alone = ["blocks.0.attn1.to_out.0.weight", "blocks.0.attn1.qkv.weight", "blocks.0.attn2.to_q.weight"];
    expect(setsOf([...names, ...alone, ...others], "qkv")).toEqual([names, others]);
    expect(setsOf([...names, ...alone, ...others], "none")).toEqual([]);
  });

  it("ties what a pattern matches with the same captures, on top of the rule", () => {
    const names = ["0.ff.up", "0.ff.down", "1.ff.up", "1.ff.down", "0.to_q", "0.to_k", "0.gate", "out"];
    expect(setsOf(names, "none", ["^(\\d+)\\.ff\\."])).toEqual([names.slice(0, 2), names.slice(2, 4)]);
    expect(setsOf(names, "none", ["\\.ff\\.(up|down)"])).toEqual([
      ["0.ff.up", "1.ff.up"],
      ["0.ff.down", "1.ff.down"],
    ]);
    expect(setsOf(names, "qkv", ["0\\.(?:to_k|gate)", "0\\.gate|out"])).toEqual([
      ["0.to_q", "0.to_k", "0.gate", "out"],
    ]);
    expect(setsOf(names, "none", ["^(\\d+)?\\.?(?:ff\\.down|out)"])).toEqual([]);
  });

  it("refuses a pattern that matches nothing", () => {
    try {
      tieLayers(["a.weight"], "none", ["attn"]);
    } catch (thrown) {
      expect(thrown as ArrowQuantError).toMatchObject({ code: "E_PATTERN", details: { pattern: "attn" } });
      return;
    }
    expect.unreachable();
  });
});
