/** Mutations of bytes and of text: one step each, on a copy. */

/** Where programs that count have their edges. */
export const BOUNDARIES = [
  "-1",
  "0",
  "-0",
  "1",
  "2",
  "3",
  "7",
  "8",
  "63",
  "64",
  "65",
  "127",
  "128",
  "255",
  "256",
  "1023",
  "1025",
  "32767",
  "65535",
  "65536",
  "2147483647",
  "2147483648",
  "4294967295",
  "4294967296",
  "9007199254740991",
  "9007199254740992",
  "9007199254740993",
  "9223372036854775807",
  "9223372036854775808",
  "18446744073709551615",
  "18446744073709551616",
  "99999999999999999999999999",
  "1e2",
  "1E400",
  "-1e-400",
  "0.5",
  "1.0",
  "00",
  "0x10",
  "1_000",
  "NaN",
  ".inf",
  "+1",
]; // prettier-ignore
const EDGE_BYTES = [
  0, 1, 2, 0x09, 0x0a, 0x0d, 0x20, 0x22, 0x27, 0x5b, 0x5c, 0x5d, 0x7b, 0x7d, 0x7f, 0x80, 0xc0, 0xef, 0xff,
];
const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|[A-Za-z_][\w.]*|[ \t]+|[\s\S]/g;

const cut = (bytes, from, to, middle = Buffer.alloc(0)) =>
  Buffer.concat([bytes.subarray(0, from), middle, bytes.subarray(to)]);

/** A run of bytes, mostly short. */
function pickRange(random, length) {
  const from = random.below(length + 1);
  const most = random.chance(0.7) ? 16 : length;
  return [from, Math.min(length, from + random.below(most + 1))];
}

const BYTE_STEPS = [
  function flipBit(random, bytes) {
    const copy = Buffer.from(bytes);
    if (copy.length > 0) copy[random.below(copy.length)] ^= 1 << random.below(8);
    return copy;
  },
  function setByte(random, bytes) {
    const copy = Buffer.from(bytes);
    if (copy.length > 0)
      copy[random.below(copy.length)] = random.chance(0.5) ? random.below(256) : random.pick(EDGE_BYTES);
    return copy;
  },
  function addToByte(random, bytes) {
    const copy = Buffer.from(bytes);
    if (copy.length > 0) copy[random.below(copy.length)] += random.pick([1, 2, 255, 254]);
    return copy;
  },
  function setInteger(random, bytes) {
    const size = random.pick([2, 4, 8]);
    if (bytes.length < size) return Buffer.from(bytes);
    const copy = Buffer.from(bytes);
    const whole = BigInt(random.pick(BOUNDARIES.filter((text) => /^-?\d+$/.test(text))));
    const value = Buffer.alloc(8);
    value.writeBigUInt64LE(BigInt.asUintN(64, whole));
    value.copy(copy, random.below(bytes.length - size + 1), 0, size);
    return copy;
  },
  function truncate(random, bytes) {
    return Buffer.from(bytes.subarray(0, random.below(bytes.length + 1)));
  },
  function remove(random, bytes) {
    return cut(bytes, ...pickRange(random, bytes.length));
  },
  function insert(random, bytes) {
    const at = random.below(bytes.length + 1);
    const added = Buffer.from(Array.from({ length: 1 + random.below(8) }, () => random.below(256)));
    return cut(bytes, at, at, added);
  },
  function duplicate(random, bytes) {
    const [from, to] = pickRange(random, bytes.length);
    const at = random.below(bytes.length + 1);
    return cut(bytes, at, at, bytes.subarray(from, to));
  },
  function overwrite(random, bytes) {
    const [from, to] = pickRange(random, bytes.length);
    const copy = Buffer.from(bytes);
    bytes.copy(copy, random.below(bytes.length + 1), from, to);
    return copy;
  },
  function repeatByte(random, bytes) {
    const at = random.below(bytes.length + 1);
    return cut(bytes, at, at, Buffer.alloc(1 + random.below(2000), random.pick(EDGE_BYTES)));
  },
];

const TEXT_STEPS = [
  function swapTokens(random, tokens) {
    const [a, b] = [random.below(tokens.length), random.below(tokens.length)];
    [tokens[a], tokens[b]] = [tokens[b], tokens[a]];
  },
  function replaceToken(random, tokens, dictionary) {
    tokens[random.below(tokens.length)] = random.pick(dictionary);
  },
  function insertToken(random, tokens, dictionary) {
    tokens.splice(random.below(tokens.length + 1), 0, random.pick(dictionary));
  },
  function copyToken(random, tokens) {
    tokens[random.below(tokens.length)] = random.pick(tokens);
  },
  function removeTokens(random, tokens) {
    const [from, to] = pickRange(random, tokens.length);
    tokens.splice(from, to - from);
  },
  function duplicateTokens(random, tokens) {
    const [from, to] = pickRange(random, tokens.length);
    tokens.splice(random.below(tokens.length + 1), 0, ...tokens.slice(from, to));
  },
  function tweakNumber(random, tokens) {
    const places = tokens.flatMap((token, index) => (/^-?\d/.test(token) ? [index] : []));
    if (places.length === 0) return;
    const at = random.pick(places);
    tokens[at] = random.chance(0.5)
      ? random.pick(BOUNDARIES)
      : String(Number(tokens[at]) + random.pick([-8, -1, 1, 8]));
  },
  function tweakString(random, tokens) {
    const places = tokens.flatMap((token, index) => (/^["\w]/.test(token) ? [index] : []));
    if (places.length === 0) return;
    const at = random.pick(places);
    const changed = [...tokens[at]];
    changed.splice(
      random.below(changed.length),
      random.below(2),
      random.pick(["\\u0000", "\\ud800", "é", "\u202e", "\\", ".", "x"]),
    );
    tokens[at] = changed.join("");
  },
  function nest(random, tokens) {
    const depth = random.chance(0.9) ? 1 + random.below(5) : random.below(3000);
    const [open, close] = random.pick([
      ["[", "]"],
      ["{", "}"],
      ['{"a":', "}"],
      ["- ", ""],
      ["? ", ""],
      ["&a [", "]"],
    ]);
    const at = random.below(tokens.length);
    tokens[at] = open.repeat(depth) + tokens[at] + close.repeat(random.chance(0.8) ? depth : 0);
  },
];

/** One step on bytes. */
export function mutateBytes(random, bytes) {
  return random.pick(BYTE_STEPS)(random, bytes);
}

/** One step on text: on its tokens mostly, else on its bytes. */
export function mutateText(random, bytes, dictionary) {
  if (random.chance(0.25)) return mutateBytes(random, bytes);
  // Latin-1 keeps every byte as it is.
  const tokens = bytes.toString("latin1").match(TOKEN) ?? [""];
  random.pick(TEXT_STEPS)(random, tokens, dictionary);
  return Buffer.from(
    tokens.map((token) => (/[^\0-\xff]/.test(token) ? Buffer.from(token).toString("latin1") : token)).join(""),
    "latin1",
  );
}

/** One step mostly, seldom more than a handful. */
export function repeatSteps(random, value, step) {
  let changed = value;
  do changed = step(changed);
  while (random.chance(0.45));
  return changed;
}

/** Whole numbers of `BOUNDARIES` that JSON can carry. */
const NUMBERS = BOUNDARIES.map(Number).filter((value) => Number.isFinite(value));

/** Every value below `root` as its holder and key. */
function listPlaces(root, places = []) {
  for (const key of Object.keys(root)) {
    places.push([root, key]);
    if (typeof root[key] === "object" && root[key] !== null) listPlaces(root[key], places);
  }
  return places;
}

const TREE_STEPS = [
  function remove(_, [holder, key]) {
    if (Array.isArray(holder)) holder.splice(Number(key), 1);
    else delete holder[key];
  },
  function tweakNumber(random, [holder, key]) {
    const value = holder[key];
    holder[key] =
      typeof value === "number" && random.chance(0.7)
        ? value + random.pick([-64, -4, -1, 1, 4, 64])
        : random.pick(NUMBERS);
  },
  function copyValue(_, [holder, key], [otherHolder, otherKey]) {
    holder[key] = structuredClone(otherHolder[otherKey]);
  },
  function swapValues(_, [holder, key], [otherHolder, otherKey]) {
    const [a, b] = [holder[key], otherHolder[otherKey]].map((value) => structuredClone(value));
    holder[key] = b;
    otherHolder[otherKey] = a;
  },
  function addMember(random, [holder, key], [, otherKey]) {
    const value = structuredClone(holder[key]);
    if (Array.isArray(holder)) holder.splice(random.below(holder.length + 1), 0, value);
    else holder[random.chance(0.5) ? otherKey : `${key}.${random.pick(["a", "weight_scale", "qweight"])}`] = value;
  },
  function replaceValue(random, [holder, key], _, dictionary) {
    const text = random.pick(dictionary);
    try {
      holder[key] = JSON.parse(text);
    } catch {
      holder[key] = text;
    }
  },
];

/** One step on the tree that a JSON text stands for: what comes of it is still JSON. Other text stays as it is. */
export function mutateJson(random, bytes, dictionary) {
  let root;
  try {
    root = JSON.parse(bytes.toString());
  } catch {
    return bytes;
  }
  const places = typeof root === "object" && root !== null ? listPlaces(root) : [];
  if (places.length === 0) return bytes;
  random.pick(TREE_STEPS)(random, random.pick(places), random.pick(places), dictionary);
  return Buffer.from(JSON.stringify(root));
}
