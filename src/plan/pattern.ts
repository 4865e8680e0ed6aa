/**
 * Regular expressions over tensor names, matched in time linear in the name whatever the pattern is.
 *
 * The engine's own RegExp backtracks: a pattern like `(\w+\.?)+$` can take hours on one name. These are run by
 * RE2, whose syntax (https://github.com/google/re2/wiki/Syntax) is JavaScript's without what no automaton can
 * do: lookaround and backreferences.
 */
import { RE2JS, RE2JSException } from "re2js";
import { ArrowQuantError } from "../errors.js";

/** Longer patterns are generated lists; several patterns or exact names do that better. */
export const MAX_PATTERN_LENGTH = 512;
/** Names of known models stay below 200 characters; the limit bounds the work of a hostile header. */
export const MAX_NAME_LENGTH = 1024;

export interface NamePattern {
  readonly source: string;
  /** Whether the pattern occurs in `name`. Throws `E_LIMIT` for a name above `MAX_NAME_LENGTH`. */
  test(name: string): boolean;
  /**
   * What the pattern's groups capture at its first occurrence in `name`, null for one that takes no part; null where
   * it does not occur. Throws as `test`.
   */
  capture(name: string): readonly (string | null)[] | null;
}

/**
 * A pattern ready to test names.
 * @param setting what messages call the pattern, e.g. `exclude (flag --exclude)`
 * @throws `E_PATTERN` where it is no regular expression, or one that is refused
 */
export function compilePattern(source: string, setting: string): NamePattern {
  const compiled = compile(source, setting);
  return {
    source,
    test(name) {
      checkName(name);
      return compiled.test(name);
    },
    capture(name) {
      checkName(name);
      const matcher = compiled.matcher(name);
      if (!matcher.find()) return null;
      return Array.from({ length: matcher.groupCount() }, (_, index) => matcher.group(index + 1));
    },
  };
}

function checkName(name: string): void {
  if (name.length <= MAX_NAME_LENGTH) return;
  throw new ArrowQuantError(
    "E_LIMIT",
    `tensor name of ${name.length} characters, patterns are matched up to ${MAX_NAME_LENGTH}`,
    { details: { name: name.slice(0, 100), length: name.length, limit: MAX_NAME_LENGTH } },
  );
}

function compile(source: string, setting: string): RE2JS {
  const refuse = (reason: string, cause?: unknown): ArrowQuantError =>
    new ArrowQuantError("E_PATTERN", `${setting}: "${source.slice(0, 100)}" ${reason}`, {
      hint: "patterns are regular expressions in RE2's syntax: without lookaround and backreferences",
      details: { setting, pattern: source },
      ...(cause === undefined ? {} : { cause }),
    });
  if (source.length > MAX_PATTERN_LENGTH) {
    throw refuse(`has ${source.length} characters, the limit is ${MAX_PATTERN_LENGTH}`);
  }
  try {
    return RE2JS.compile(source);
  } catch (thrown) {
    if (!(thrown instanceof RE2JSException)) throw thrown;
    const reason = thrown.message.replace(/^error parsing regexp: /, "");
    throw refuse(`is not a regular expression: ${reason}`, thrown);
  }
}
