/**
 * Seeded random numbers, the same on every machine: xoshiro128** (Blackman and Vigna, "Scrambled linear pseudorandom
 * number generators", ACM TOMS 47, 2021), its state filled by splitmix32's finalizer over the seed's two words. Whole
 * numbers only: no function of Math that engines round in different ways.
 */

const WORD = 2 ** 32;
/** The golden ratio in 32 bits: splitmix's increment. */
const GOLDEN = 0x9e3779b9;

export interface RandomSource {
  /** In [0, 1), a multiple of 2^-32. */
  fraction(): number;
  /** A whole number from 0 to `bound` − 1 (at most 2^32 of them), all equally likely. */
  below(bound: number): number;
}

/** @param seed a whole number from 0 to 2^53 − 1 */
export function seedRandom(seed: number): RandomSource {
  const high = Math.floor(seed / WORD);
  let [a, b, c, d] = [0, 1, 2, 3].map((index) => mix(mix((seed % WORD) + index * GOLDEN) + high)) as [
    number,
    number,
    number,
    number,
  ];
  const draw = (): number => {
    const scrambled = Math.imul(rotateLeft(Math.imul(b, 5), 7), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = rotateLeft(d, 11);
    return scrambled;
  };
  return {
    fraction: () => draw() / WORD,
    below(bound) {
      // A plain remainder would favour the small ones.
      const limit = WORD - (WORD % bound);
      let drawn = draw();
      while (drawn >= limit) drawn = draw();
      return drawn % bound;
    },
  };
}

function rotateLeft(word: number, count: number): number {
  return (word << count) | (word >>> (32 - count));
}

function mix(value: number): number {
  let word = value | 0;
  word = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
  word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
  return word ^ (word >>> 15);
}
