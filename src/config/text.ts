/** Setting values written as text, in variables and flags. */
import type { ConfigKey } from "./config.js";
import { configSchema } from "./schema.js";

const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i;
const WORDS: Readonly<Record<string, readonly unknown[]>> = {
  true: [true],
  false: [false],
  null: [null],
  "1": [true],
  "0": [false],
};

/**
 * The value that `text` means for `key`: the first of its readings (text, number, word) that the schema
 * takes, or the text itself where it takes none, for the schema to refuse.
 */
export function parseSetting(key: ConfigKey, text: string): unknown {
  const readings: unknown[] = [text];
  if (NUMBER.test(text)) readings.push(Number(text));
  if (Object.hasOwn(WORDS, text)) readings.push(...(WORDS[text] as unknown[]));
  return readings.find((reading) => configSchema.shape[key].safeParse(reading).success) ?? text;
}

/** Keys whose flag may be given several times. */
const LIST_KEYS: ReadonlySet<ConfigKey> = new Set([
  "include",
  "exclude",
  "sensitive_layer_names",
  "sensitive_layer_patterns",
  "tie_patterns",
]);

/** Keys whose flags are lists of numbers with commas between. */
const NUMBER_LIST_KEYS: ReadonlySet<ConfigKey> = new Set(["candidate_bits", "candidate_group_sizes"]);

/** Keys whose flags are `PATTERN=BITS`. */
const WIDTH_KEYS: ReadonlySet<ConfigKey> = new Set(["layer_bit_widths", "layer_min_bits", "layer_max_bits"]);

/**
 * The value that flags give `key`: texts are read as in variables, one text for a list is a list of one,
 * `components` and lists of numbers are split at commas, and `PATTERN=BITS` texts become a mapping.
 */
export function parseFlag(key: ConfigKey, value: unknown): unknown {
  if (WIDTH_KEYS.has(key)) return parseLayerBits(value);
  if (key === "components") {
    const texts = Array.isArray(value) ? value : [value];
    if (!texts.every((text) => typeof text === "string")) return value;
    return texts.flatMap((text) => text.split(",")).map((name) => name.trim());
  }
  if (typeof value !== "string") return value;
  if (NUMBER_LIST_KEYS.has(key)) {
    const texts = value.split(",").map((text) => text.trim());
    return texts.every((text) => NUMBER.test(text)) ? texts.map(Number) : value;
  }
  return LIST_KEYS.has(key) ? [value] : parseSetting(key, value);
}

/** The mapping that `["PATTERN=BITS", …]` means; what is not of that form stays, to be refused. */
function parseLayerBits(value: unknown): unknown {
  const texts = typeof value === "string" ? [value] : value;
  if (!Array.isArray(texts)) return value;
  const widths: [string, unknown][] = [];
  for (const text of texts) {
    const cut = typeof text === "string" ? text.lastIndexOf("=") : -1;
    if (cut < 1) return value;
    const bits = (text as string).slice(cut + 1);
    widths.push([(text as string).slice(0, cut), NUMBER.test(bits) ? Number(bits) : bits]);
  }
  const seen = new Set(widths.map(([pattern]) => pattern));
  return seen.size === widths.length ? Object.fromEntries(widths) : value;
}
