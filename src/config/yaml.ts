/** Configuration files: YAML (and so JSON) with every value knowing its line. */
import {
  type Document,
  isAlias,
  isCollection,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseDocument,
  visit,
} from "yaml";
import type { OriginSource } from "./config.js";
import { listLeaves } from "./nested.js";
import { createProblem, type Place, type Problem } from "./problem.js";
import { isSection } from "./schema.js";

/** A configuration is a page of text; more is a mistaken file, and would cost memory to parse. */
export const MAX_CONFIG_BYTES = 1024 ** 2;
/** Aliases beyond this build more than any configuration holds ("billion laughs"). */
const MAX_ALIAS_COUNT = 100;

/**
 * Nesting that no setting has. The parser recurses per level, and where it exhausts the stack inside of a
 * regular expression the whole process dies; so deeper text is not given to it.
 */
const MAX_NESTING = 100;

/** A value as given, before it is checked. */
export interface GivenValue {
  readonly key: string;
  readonly value: unknown;
  readonly detail: string;
  /** Where the key stands. */
  readonly keyPlace: Place;
  /** Where the value, or the part of it under `path`, stands. */
  placeOf(path: readonly PropertyKey[]): Place;
}

export interface ReadText {
  readonly given: readonly GivenValue[];
  readonly problems: readonly Problem[];
}

/**
 * The settings a YAML text gives, in its order. Nothing is thrown for what the text holds: every fault of it
 * (syntax, duplicate keys, several documents, a root that is no mapping, too many aliases) is a problem.
 * @param maxLength in characters
 */
export function readYaml(
  text: string,
  file: string,
  source: OriginSource,
  maxLength: number = MAX_CONFIG_BYTES,
): ReadText {
  const place = (line: number, column: number): Place => ({
    source,
    text: `${file}:${line}:${column}`,
    file,
    line,
    column,
  });
  const fail = (at: Place, sentence: string): ReadText => ({
    given: [],
    problems: [createProblem(at, sentence)],
  });
  // UTF-16 units, at most three bytes each.
  if (text.length > maxLength) {
    return fail(place(1, 1), `${text.length} characters, the limit is ${maxLength}`);
  }
  const deepLine = findDeepLine(text);
  if (deepLine !== null) return fail(place(deepLine, 1), `nested deeper than ${MAX_NESTING} levels`);

  const lines = new LineCounter();
  const placeAt = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return place(Math.max(1, line), Math.max(1, col));
  };
  const document = parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    // Compares every key of a mapping with every other; done below in linear time.
    uniqueKeys: false,
    strict: true,
    // Else the library writes a process warning for keys that are no scalars; they are problems below.
    logLevel: "error",
  });
  const faults = [...document.errors, ...document.warnings];
  if (faults.length > 0) {
    return {
      given: [],
      problems: faults.map((fault) =>
        createProblem(
          placeAt(fault.pos[0]),
          fault.code === "MULTIPLE_DOCS" ? "several documents in one file (`---`): one is allowed" : fault.message,
        ),
      ),
    };
  }
  const root = document.contents;
  if (root === null || (isScalar(root) && root.value === null)) return { given: [], problems: [] };
  if (!isMap(root)) {
    return fail(placeOfNode(root, placeAt), "the file must be a mapping of settings, `key: value`");
  }
  const misuses = findMisuses(document);
  if (misuses.length > 0) {
    return {
      given: [],
      problems: misuses.map(({ node, sentence }) => createProblem(placeOfNode(node, placeAt), sentence)),
    };
  }
  let values: Record<string, unknown>;
  try {
    values = document.toJS({ maxAliasCount: MAX_ALIAS_COUNT }) as Record<string, unknown>;
  } catch (thrown) {
    return fail(place(1, 1), thrown instanceof Error ? thrown.message : String(thrown));
  }
  const findNode = createNodeFinder(root);
  const given: GivenValue[] = [];
  const problems: Problem[] = [];
  for (const pair of root.items) {
    const keyNode = pair.key as Node;
    const keyPlace = placeOfNode(keyNode, placeAt);
    if (!isScalar(keyNode) || typeof keyNode.value !== "string") {
      problems.push(createProblem(keyPlace, `a key must be text, not ${text.slice(...keyRange(keyNode))}`));
      continue;
    }
    const name = keyNode.value;
    for (const { key, value, path } of listLeaves({ [name]: values[name] }, isSection)) {
      const leafPlace = path.length === 1 ? keyPlace : placeOfNode(findNode(path, "key") ?? keyNode, placeAt);
      given.push({
        key,
        value,
        detail: `${file}:${leafPlace.line}`,
        keyPlace: leafPlace,
        placeOf: (below) => placeOfNode(findNode([...path, ...below], "value") ?? keyNode, placeAt),
      });
    }
  }
  return { given, problems };
}

/** Where the source of a node stands, shortened to what a message shows. */
function keyRange({ range }: Node): [number, number] {
  const [start, end] = range ?? [0, 0];
  return [start, Math.min(end, start + 60)];
}

function placeOfNode(node: Node, placeAt: (offset: number) => Place): Place {
  return placeAt(node.range?.[0] ?? 0);
}

/**
 * Finds the node at a path below `root`, or the nearest above it that has a place. The library's own search goes
 * through a mapping key by key, which for every fault of a large one takes the square of it.
 */
function createNodeFinder(root: Node): (path: readonly PropertyKey[], part: "key" | "value") => Node | null {
  const indices = new Map<Node, ReadonlyMap<string, Pair>>();
  const findBelow = (node: Node, step: PropertyKey, part: "key" | "value"): unknown => {
    if (isSeq(node)) return node.items[Number(step)];
    if (!isMap(node)) return undefined;
    let index = indices.get(node);
    if (index === undefined) {
      // A key like `12` is text in the value and a number in the document.
      index = new Map(node.items.map((pair) => [isScalar(pair.key) ? String(pair.key.value) : "", pair]));
      indices.set(node, index);
    }
    return index.get(String(step))?.[part];
  };
  return (path, part) => {
    let found = root;
    for (const [depth, step] of path.entries()) {
      const node = findBelow(found, step, depth === path.length - 1 ? part : "value");
      if (!isNode(node)) break;
      found = node;
    }
    return found === root ? null : found;
  };
}

/**
 * The first line where `text` may be nested deeper than `MAX_NESTING`, or null: open brackets, indentation
 * and indicators on one line, quotes and comments not told apart, so that it errs towards deep.
 */
function findDeepLine(text: string): number | null {
  const indents: number[] = [];
  let brackets = 0;
  for (const [index, line] of text.split("\n").entries()) {
    const indent = line.search(/\S/);
    if (indent < 0) continue;
    while (indents.length > 0 && (indents.at(-1) as number) >= indent) indents.pop();
    indents.push(indent);
    let indicators = 0;
    for (let position = indent; position < line.length; position++) {
      const character = line[position] as string;
      if (character === "[" || character === "{") brackets += 1;
      else if (character === "]" || character === "}") brackets = Math.max(0, brackets - 1);
      else if (brackets === 0 && "-?:".includes(character) && /\s|^$/.test(line[position + 1] ?? "")) indicators += 1;
      if (indents.length + brackets + indicators > MAX_NESTING) return index + 1;
    }
  }
  return null;
}

interface Misuse {
  readonly node: Node;
  readonly sentence: string;
}

/**
 * What is well-formed YAML and no configuration: keys that stand twice, aliases beyond the limit or inside of what
 * they refer to. One walk, however large the document: the library's own checks take the square of it.
 */
function findMisuses(document: Document): Misuse[] {
  const found: Misuse[] = [];
  /** An alias refers to the last node before it that has the anchor. */
  const anchored = new Map<string, Node>();
  let aliasCount = 0;
  visit(document, (_key, node, path) => {
    if (isAlias(node)) {
      aliasCount += 1;
      const target = anchored.get(node.source);
      if (aliasCount === MAX_ALIAS_COUNT + 1) {
        found.push({ node, sentence: `the alias count passes the limit of ${MAX_ALIAS_COUNT}` });
      }
      if (target !== undefined && path.includes(target)) {
        found.push({ node, sentence: `alias "${node.source}" contains itself` });
      }
    } else if ((isScalar(node) || isCollection(node)) && node.anchor !== undefined) {
      anchored.set(node.anchor, node);
    }
    if (!isMap(node)) return;
    const keys = new Set<unknown>();
    for (const { key } of node.items) {
      if (!isScalar(key)) continue;
      if (keys.has(key.value))
        found.push({ node: key, sentence: `the key ${String(key.value).slice(0, 60)} stands twice` });
      keys.add(key.value);
    }
  });
  return found;
}
