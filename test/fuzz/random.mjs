/** Random numbers that depend on nothing but a text, so that every case can be made again. */

/** Larger inputs only repeat what smaller ones show. */
const MAX_CASE_BYTES = 256 * 1024;

/** @typedef {{ below(n: number): number, chance(p: number): boolean, pick<T>(list: ArrayLike<T>): T }} Random */

/** The generator sfc32 (Chris Doty-Humphrey, PractRand), seeded with an FNV-1a hash of `text`. */
function createRandom(text) {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  let [a, b, c, counter] = [hash, hash ^ 0x9e3779b9, ~hash, 1];
  const next = () => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    return sum >>> 0;
  };
  for (let round = 0; round < 12; round++) next();
  const below = (n) => Math.floor((next() / 2 ** 32) * n);
  return { below, chance: (p) => next() < p * 2 ** 32, pick: (list) => list[below(list.length)] };
}

/** The input of case `index`: a function of its arguments alone. */
export function makeCase(format, seed, index, seeds) {
  const random = createRandom(`${format.name} ${seed} ${index}`);
  return format.mutate(random, seeds, index).subarray(0, MAX_CASE_BYTES);
}
