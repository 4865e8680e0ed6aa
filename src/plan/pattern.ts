/**
 * Regular expressions over tensor names, matched in time linear in the name whatever the pattern is.
 *
 * The engine's own RegExp backtracks: a pattern like `(\w+\.?)+$` can take hours on one name. These are run
 * as a nondeterministic automaton instead, all states at once (K. Thompson, "Regular Expression Search
 * Algorithm", CACM 11(6), 1968). Syntax and meaning are those of JavaScript without flags; what an
 * automaton cannot do (backreferences, lookbehind) is refused. Lookahead costs the name's length once more.
 */
import { ArrowQuantError } from "../errors.js";

/** Longer patterns are generated lists; several patterns or exact names do that better. */
export const MAX_PATTERN_LENGTH = 512;
/** Names of known models stay below 200 characters; the limit bounds the work of a hostile header. */
export const MAX_NAME_LENGTH = 1024;
/** Counted repetition multiplies states: `(a{999}){999}` is short text for a million of them. */
const MAX_STATES = 5000;

export interface NamePattern {
  readonly source: string;
  /** Whether the pattern occurs in `name`. Throws `E_LIMIT` for a name above `MAX_NAME_LENGTH`. */
  test(name: string): boolean;
}

type Assertion = "start" | "end" | "boundary" | "inside";

type Tree =
  | { kind: "unit"; accepts: (code: number) => boolean }
  | { kind: "assertion"; assertion: Assertion }
  | { kind: "lookahead"; tree: Tree; negative: boolean }
  | { kind: "sequence"; parts: Tree[] }
  | { kind: "choice"; options: Tree[] }
  | { kind: "repeat"; tree: Tree; min: number; max: number };

type State =
  | { op: "unit"; accepts: (code: number) => boolean }
  | { op: "assertion"; assertion: Assertion }
  | { op: "lookahead"; program: Program; negative: boolean }
  /** Goes on at both targets. */
  | { op: "split"; first: number; second: number }
  | { op: "match" };

/** States with the room to run them in: a test allocates nothing per character. */
interface Program {
  readonly states: readonly State[];
  /** Per state, the stamp of the position at which it was last entered. */
  readonly entered: Float64Array;
  /** States to enter at this position, a stack: the ones carried over, the start, two of each split. */
  pending: Int32Array;
  /** States to enter at the next. */
  following: Int32Array;
  /** Of the position; grows over all runs, so that `entered` is never cleared. */
  stamp: number;
}

function createProgram(states: readonly State[]): Program {
  const room = 3 * states.length + 1;
  return {
    states,
    entered: new Float64Array(states.length),
    pending: new Int32Array(room),
    following: new Int32Array(room),
    stamp: 0,
  };
}

/**
 * A pattern ready to test names.
 * @param setting what messages call the pattern, e.g. `exclude (flag --exclude)`
 * @throws `E_PATTERN` where it is no regular expression, or one that is refused
 */
export function compilePattern(source: string, setting: string): NamePattern {
  const refuse = (reason: string): ArrowQuantError =>
    new ArrowQuantError("E_PATTERN", `${setting}: "${source.slice(0, 100)}" ${reason}`, {
      hint: "patterns are regular expressions without backreferences and lookbehind",
      details: { setting, pattern: source },
    });
  if (source.length > MAX_PATTERN_LENGTH) {
    throw refuse(`has ${source.length} characters, the limit is ${MAX_PATTERN_LENGTH}`);
  }
  try {
    new RegExp(source);
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message.replace(/^.*\/: /, "") : String(thrown);
    throw refuse(`is not a regular expression: ${reason}`);
  }
  const parser = new PatternParser(source, refuse);
  const states: State[] = [];
  emit(parser.parseChoice(), states, refuse);
  states.push({ op: "match" });
  const program = createProgram(states);
  return {
    source,
    test(name) {
      if (name.length > MAX_NAME_LENGTH) {
        throw new ArrowQuantError(
          "E_LIMIT",
          `tensor name of ${name.length} characters, patterns are matched up to ${MAX_NAME_LENGTH}`,
          { details: { name: name.slice(0, 100), length: name.length, limit: MAX_NAME_LENGTH } },
        );
      }
      return new Run(name).matches(program, 0, true);
    },
  };
}

const QUANTIFIER = /(?:[*+?]|\{(\d+)(?:(,)(\d*))?\})\??/y;
const UNIT = /\[(?:\\[\s\S]|[^\]\\])*\]|\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|c[A-Za-z]|[\s\S])|[\s\S]/y;
const ASSERTIONS: Readonly<Record<string, Assertion>> = {
  "^": "start",
  $: "end",
  "\\b": "boundary",
  "\\B": "inside",
};

/** Reads a pattern that RegExp has found well formed. */
class PatternParser {
  private position = 0;
  private readonly source: string;
  private readonly refuse: (reason: string) => ArrowQuantError;

  constructor(source: string, refuse: (reason: string) => ArrowQuantError) {
    this.source = source;
    this.refuse = refuse;
  }

  parseChoice(): Tree {
    const options = [this.parseSequence()];
    while (this.source[this.position] === "|") {
      this.position += 1;
      options.push(this.parseSequence());
    }
    return options.length === 1 ? (options[0] as Tree) : { kind: "choice", options };
  }

  private parseSequence(): Tree {
    const parts: Tree[] = [];
    while (this.position < this.source.length && !"|)".includes(this.source[this.position] as string)) {
      parts.push(this.parseQuantifier(this.parseUnit()));
    }
    return { kind: "sequence", parts };
  }

  private parseQuantifier(tree: Tree): Tree {
    const [text, from, comma, to] = this.take(QUANTIFIER) ?? [];
    if (text === undefined) return tree;
    if (from !== undefined) {
      const min = Number(from);
      return { kind: "repeat", tree, min, max: comma === undefined ? min : to ? Number(to) : Infinity };
    }
    return { kind: "repeat", tree, min: text[0] === "+" ? 1 : 0, max: text[0] === "?" ? 1 : Infinity };
  }

  private parseUnit(): Tree {
    if (this.source[this.position] === "(") return this.parseGroup();
    const [text] = this.take(UNIT) as RegExpExecArray;
    const assertion = ASSERTIONS[text];
    if (assertion !== undefined) return { kind: "assertion", assertion };
    if (/^\\(?:[1-9]|k)/.test(text)) throw this.refuse("has a backreference");
    return { kind: "unit", accepts: acceptUnit(text) };
  }

  private parseGroup(): Tree {
    const [, kind] = this.take(/\((\?(?:<(?![=!])[^>]*>|<?[=!]|[^:]*:))?/y) as RegExpExecArray;
    if (kind === "?<=" || kind === "?<!") throw this.refuse("has a lookbehind");
    // Flags of a group (`(?i:…)`) are newer than the oldest Node.js this runs on.
    if (kind !== undefined && !/^\?(?::|=|!|<.*>)$/.test(kind)) throw this.refuse("has a group with flags");
    const tree = this.parseChoice();
    this.position += 1;
    return kind === "?=" || kind === "?!" ? { kind: "lookahead", tree, negative: kind === "?!" } : tree;
  }

  private take(token: RegExp): RegExpExecArray | null {
    token.lastIndex = this.position;
    const found = token.exec(this.source);
    this.position += found?.[0].length ?? 0;
    return found;
  }
}

/** Whether one UTF-16 unit is in the set that `text` (a character, an escape or a class) stands for. */
function acceptUnit(text: string): (code: number) => boolean {
  if (/^[\w-]$/.test(text)) {
    const only = text.charCodeAt(0);
    return (code) => code === only;
  }
  // A lone bracket or brace is itself outside of the `u` flag.
  const expression = new RegExp(`^${text === "]" || text === "{" || text === "}" ? `\\${text}` : text}$`);
  const ascii = Uint8Array.from({ length: 128 }, (_, code) =>
    Number(expression.test(String.fromCharCode(code))),
  );
  return (code) => (code < 128 ? ascii[code] === 1 : expression.test(String.fromCharCode(code)));
}

/** Appends the states of `tree`; they go on at the state after the last. */
function emit(tree: Tree, states: State[], refuse: (reason: string) => ArrowQuantError): void {
  if (states.length > MAX_STATES) throw refuse("repeats too much");
  switch (tree.kind) {
    case "unit":
      states.push({ op: "unit", accepts: tree.accepts });
      return;
    case "assertion":
      states.push({ op: "assertion", assertion: tree.assertion });
      return;
    case "lookahead": {
      const inner: State[] = [];
      emit(tree.tree, inner, refuse);
      inner.push({ op: "match" });
      states.push({ op: "lookahead", program: createProgram(inner), negative: tree.negative });
      return;
    }
    case "sequence":
      for (const part of tree.parts) emit(part, states, refuse);
      return;
    case "choice": {
      const ends: { op: "split"; first: number; second: number }[] = [];
      tree.options.forEach((option, index) => {
        const isLast = index === tree.options.length - 1;
        const fork = { op: "split" as const, first: states.length + 1, second: 0 };
        if (!isLast) states.push(fork);
        emit(option, states, refuse);
        if (isLast) return;
        const end = { op: "split" as const, first: 0, second: 0 };
        states.push(end);
        ends.push(end);
        fork.second = states.length;
      });
      for (const end of ends) end.first = end.second = states.length;
      return;
    }
    case "repeat":
      emitRepeat(tree, states, refuse);
  }
}

function emitRepeat(
  { tree, min, max }: Extract<Tree, { kind: "repeat" }>,
  states: State[],
  refuse: (reason: string) => ArrowQuantError,
): void {
  if (min > MAX_STATES || (max !== Infinity && max > MAX_STATES)) throw refuse("repeats too much");
  for (let count = 0; count < min; count++) emit(tree, states, refuse);
  const optional = max === Infinity ? 1 : max - min;
  for (let count = 0; count < optional; count++) {
    const fork = { op: "split" as const, first: states.length + 1, second: 0 };
    const start = states.length;
    states.push(fork);
    emit(tree, states, refuse);
    if (max === Infinity) states.push({ op: "split", first: start, second: start });
    fork.second = states.length;
  }
}

/** One name under test. */
class Run {
  private readonly name: string;
  /** Per lookahead: at each position 0 unknown, 1 no, 2 yes; so that each position is tried once. */
  private readonly known = new Map<State, Uint8Array>();

  constructor(name: string) {
    this.name = name;
  }

  /** Whether `program` matches from `start`, or (`anywhere`) from any later position too. */
  matches(program: Program, start: number, anywhere: boolean): boolean {
    const { name } = this;
    const { states, entered } = program;
    let followingCount = 0;
    for (let position = start; ; position++) {
      const { pending: following, following: pending } = program;
      program.pending = pending;
      program.following = following;
      program.stamp += 1;
      let pendingCount = followingCount;
      followingCount = 0;
      if (anywhere || position === start) pending[pendingCount++] = 0;
      while (pendingCount > 0) {
        const index = pending[--pendingCount] as number;
        if (entered[index] === program.stamp) continue;
        entered[index] = program.stamp;
        const state = states[index] as State;
        switch (state.op) {
          case "match":
            return true;
          case "unit":
            if (position < name.length && state.accepts(name.charCodeAt(position))) {
              following[followingCount++] = index + 1;
            }
            break;
          case "split":
            pending[pendingCount++] = state.first;
            pending[pendingCount++] = state.second;
            break;
          case "assertion":
            if (this.holds(state.assertion, position)) pending[pendingCount++] = index + 1;
            break;
          case "lookahead":
            if (this.looksAhead(state, position) !== state.negative) pending[pendingCount++] = index + 1;
        }
      }
      if (position >= name.length || (followingCount === 0 && !anywhere)) return false;
    }
  }

  private looksAhead(state: Extract<State, { op: "lookahead" }>, position: number): boolean {
    let known = this.known.get(state);
    if (known === undefined) {
      known = new Uint8Array(this.name.length + 1);
      this.known.set(state, known);
    }
    if (known[position] === 0) known[position] = this.matches(state.program, position, false) ? 2 : 1;
    return known[position] === 2;
  }

  private holds(assertion: Assertion, position: number): boolean {
    if (assertion === "start") return position === 0;
    if (assertion === "end") return position === this.name.length;
    const isWordBefore = /\w/.test(this.name[position - 1] ?? "");
    const isWordAfter = /\w/.test(this.name[position] ?? "");
    return (isWordBefore !== isWordAfter) === (assertion === "boundary");
  }
}
