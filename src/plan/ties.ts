/** Which layers get the same bits and group size: query, key and value of one attention, and what patterns say. Pure. */
import { ArrowQuantError } from "../errors.js";
import { compilePattern } from "./pattern.js";
import type { TIE_RULES } from "./plan.js";

/** Suffixes of the names of weights that are not part of the layer's name. */
const WEIGHT_SUFFIX = /\.weight$/;

/**
 * The projections of an attention by the words between `_` in the last part of a layer's name: `to_q` and `to_kv`
 * (diffusers), `add_k_proj` (its joint attention's second stream), `q_proj`, `query`, `attn_v` (GGUF), `q_linear`
 * (PixArt), `wk` (Lumina), plain `v` (original VAEs, Wan). A fused `qkv` has nobody to be tied to.
 */
const PROJECTIONS: ReadonlyMap<string, string> = new Map(
  [
    ["q", "k", "v", "kv"],
    ["query", "key", "value"],
    ["wq", "wk", "wv", "wkv"],
  ].flatMap((words, naming) => words.map((word) => [word, `<${naming}>`] as const)),
);

/**
 * Ties of layers.
 * @param names of the layers or of their weights
 * @param patterns regular expressions: layers that one matches with the same captures are tied. With the rule and with
 *   each other they add up: what is tied to the same layer is tied together
 * @returns for each layer tied to another the first of them; nothing for the others
 * @throws `E_PATTERN` for one that is no regular expression or matches none of `names`
 */
export function tieLayers(
  names: readonly string[],
  rule: (typeof TIE_RULES)[number],
  patterns: readonly string[],
): ReadonlyMap<string, string> {
  const groups = [
    ...(rule === "qkv" ? [groupNames(names, projectionKey)] : []),
    ...patterns.map((source) => groupByPattern(names, source)),
  ].flatMap((byKey) => [...byKey.values()]);
  const members = new Map<string, readonly string[]>();
  for (const group of groups) {
    const joined = [...new Set(group.flatMap((name) => members.get(name) ?? [name]))];
    for (const name of joined) members.set(name, joined);
  }
  const ties = new Map<string, string>();
  for (const name of names) {
    const tied = members.get(name);
    if (tied === undefined || tied.length < 2 || ties.has(name)) continue;
    for (const other of tied) ties.set(other, name);
  }
  return ties;
}

/** What the projections of one attention share: their name with the word that tells them apart left open. */
function projectionKey(name: string): string | null {
  const layer = name.replace(WEIGHT_SUFFIX, "");
  const start = layer.lastIndexOf(".") + 1;
  const words = layer.slice(start).split("_");
  const open = words.map((word) => PROJECTIONS.get(word) ?? word);
  return words.some((word) => PROJECTIONS.has(word)) ? layer.slice(0, start) + open.join("_") : null;
}

function groupByPattern(names: readonly string[], source: string): Map<string, string[]> {
  const pattern = compilePattern(source, "tie_patterns");
  const groups = groupNames(names, (name) => {
    const captures = pattern.capture(name);
    return captures === null ? null : JSON.stringify(captures);
  });
  if (groups.size > 0) return groups;
  throw new ArrowQuantError("E_PATTERN", `tie_patterns: "${source}" matches none of ${names.length} layers`, {
    ...(names[0] === undefined ? {} : { hint: `layer names look like "${names[0]}"` }),
    details: { setting: "tie_patterns", pattern: source, layerCount: names.length },
  });
}

function groupNames(names: readonly string[], keyOf: (name: string) => string | null): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const name of names) {
    const key = keyOf(name);
    if (key === null) continue;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [name]);
    else group.push(name);
  }
  return groups;
}
