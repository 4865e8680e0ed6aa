/** What is wrong with a configuration: collected from all sources, reported at once. */
import { distance } from "fastest-levenshtein";
import { ArrowQuantError } from "../errors.js";
import type { Origin } from "./config.js";
import { CONFIG_KEYS, type ConfigKey, configJsonSchema, type JsonSchema } from "./schema.js";

export interface Problem {
  /** A whole sentence with the place in front. */
  readonly message: string;
  readonly source: Origin["source"];
  readonly key: string | null;
  readonly value: unknown;
  readonly allowed: string | null;
  readonly file: string | null;
  readonly line: number | null;
  readonly column: number | null;
}

/** A place in words and, for files, in numbers. */
export interface Place {
  readonly source: Origin["source"];
  /** `quant.yaml:3:13`, `--bit-width`, `ARROW_QUANT_BIT_WIDTH`. */
  readonly text: string;
  readonly file: string | null;
  readonly line: number | null;
  readonly column: number | null;
}

/** A problem at `place`; `about` says which setting, where the place does not already. */
export function createProblem(
  place: Place,
  sentence: string,
  about: { key?: string; value?: unknown; allowed?: string } = {},
): Problem {
  return {
    message: `${place.text}: ${sentence}`,
    source: place.source,
    key: about.key ?? null,
    value: about.value ?? null,
    allowed: about.allowed ?? null,
    file: place.file,
    line: place.line,
    column: place.column,
  };
}

/** More than these help nobody; a file of noise would give thousands. */
const MAX_PROBLEMS_SHOWN = 20;

/** `E_CONFIG` with every problem in the message and in `details.problems`. */
export function createConfigError(problems: readonly Problem[]): ArrowQuantError {
  const shown = problems.slice(0, MAX_PROBLEMS_SHOWN).map((problem) => problem.message);
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
  const message =
    problems.length === 1
      ? (shown[0] as string)
      : `${problems.length} problems in the configuration:\n  ${shown.join("\n  ")}`;
  return new ArrowQuantError("E_CONFIG", message, {
    hint: "`arrowquant config schema` lists every key with what it takes",
    details: { problems: problems.slice(0, MAX_PROBLEMS_SHOWN) },
  });
}

/** A value as it is shown in a message. */
export function showValue(value: unknown): string {
  const text = typeof value === "bigint" ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** The sentence for a key that is none of ours, with the likely one or all of them. */
export function describeUnknownKey(key: string): { sentence: string; allowed: string } {
  const likely = suggest(key, CONFIG_KEYS);
  const allowed = CONFIG_KEYS.join(", ");
  const rest = likely === null ? `the keys are ${allowed}` : `did you mean "${likely}"?`;
  return {
    sentence: `unknown key ${showValue(key)}: ${rest}`,
    allowed,
  };
}

/** The word of `words` that `word` most likely misspells, or null. */
export function suggest(word: string, words: readonly string[]): string | null {
  const spelt = word.slice(0, 100).toLowerCase().replaceAll("-", "_");
  let best: string | null = null;
  // A third of the letters may be wrong, two in any case: `bits` is no misspelling of `bit_width`.
  let bestDistance = Math.max(2, Math.floor(spelt.length / 3)) + 1;
  for (const candidate of words) {
    const steps = distance(spelt, candidate.toLowerCase());
    if (steps < bestDistance) [best, bestDistance] = [candidate, steps];
  }
  return best;
}

let cachedSchema: JsonSchema | null = null;

/**
 * What a setting takes, in words: `2, 3 or 4`, `an integer from 16 to 1024`.
 * @param path below the key: an index or a key of the setting's own value
 */
export function describeAllowed(key: ConfigKey, path: readonly PropertyKey[] = []): string {
  cachedSchema ??= configJsonSchema();
  let schema: JsonSchema = cachedSchema.properties?.[key] ?? {};
  for (const step of path) {
    const parts = [schema, ...(schema.anyOf ?? [])];
    const inner =
      typeof step === "number"
        ? parts.find((part) => part.items !== undefined)?.items
        : parts.find((part) => typeof part.additionalProperties === "object")?.additionalProperties;
    if (typeof inner === "object") schema = inner;
  }
  return joinWords(listAllowed(schema));
}

/** The alternatives a schema leaves, flat: `["2", "4", "8", "none"]`. */
function listAllowed(schema: JsonSchema): string[] {
  const { type, examples } = schema;
  if (schema.anyOf !== undefined) {
    return schema.anyOf.flatMap((part) => listAllowed(examples === undefined ? part : { examples, ...part }));
  }
  if (Array.isArray(type)) return type.flatMap((one: string) => listAllowed({ ...schema, type: one }));
  if (schema.enum !== undefined) return schema.enum.map(String);
  if (schema.const !== undefined) return [String(schema.const)];
  switch (type) {
    case "boolean":
      return ["true", "false"];
    case "null":
      return ["null"];
    case "integer":
    case "number":
      return [describeRange(schema)];
    case "array":
      return [
        schema.items === undefined || schema.items.type === "string"
          ? "a list of texts"
          : `a list of ${joinWords(listAllowed(schema.items))}`,
      ];
    case "object": {
      const bits = typeof schema.additionalProperties === "object" ? schema.additionalProperties : {};
      return [`a mapping of regular expressions to ${joinWords(listAllowed(bits))}`];
    }
    default:
      return [describeText(schema)];
  }
}

function describeRange({ type, minimum, maximum }: JsonSchema): string {
  const kind = type === "integer" ? "an integer" : "a number";
  const from = minimum === undefined || minimum === Number.MIN_SAFE_INTEGER ? null : minimum;
  const to = maximum === undefined || maximum === Number.MAX_SAFE_INTEGER ? null : maximum;
  if (from !== null && to !== null) return `${kind} from ${from} to ${to}`;
  if (from !== null) return `${kind} of at least ${from}`;
  return kind;
}

function describeText(schema: JsonSchema): string {
  const example = schema.examples?.find((value) => typeof value === "string");
  if (example !== undefined) return `text like ${JSON.stringify(example)}`;
  return schema.maxLength === undefined ? "text" : `text of 1 to ${schema.maxLength} characters`;
}

function joinWords(words: readonly string[]): string {
  const last = words.at(-1) ?? "";
  return words.length < 2 ? last : `${words.slice(0, -1).join(", ")} or ${last}`;
}
