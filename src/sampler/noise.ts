/**
 * Seeded noise that is the same on every machine, bit for bit: counters through Philox4x32-10 (Salmon et al.,
 * "Parallel random numbers: as easy as 1, 2, 3", SC'11), pairs of normals by Marsaglia's polar method.
 *
 * The last bits of Math.log, Math.cos and their like differ between engines. Nothing here calls them: integers,
 * the four operations and Math.sqrt are exact by IEEE 754, the logarithm is our own, made of those.
 *
 * Exactly: block n of stream k under a seed is Philox of counter (n mod 2^32, n div 2^32, k, domain) and key
 * (seed mod 2^32, seed div 2^32): four words w. Normals: u = ((w0 >> 5)·2^26 + (w1 >> 6))/2^53, v likewise of
 * w2 and w3, x = 2u − 1, y = 2v − 1, s = x² + y²; blocks with s ≥ 1 or s = 0 are passed over, the others give
 * x·f and y·f with f = sqrt(−2·ln(s)/s), rounded to float32. Integers: the first word below the largest multiple
 * of the bound, modulo the bound.
 */
import { ArrowQuantError } from "../errors.js";

export interface NoiseSource {
  /** Overwrites `into` with the next independent normals of mean 0 and variance 1. */
  fill(into: Float32Array): void;
}

const GAUSSIAN_DOMAIN = 0;
const INTEGER_DOMAIN = 1;

const WORD = 2 ** 32;
/** Philox4x32: multipliers and the Weyl constants that the key is bumped by. */
const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/** 1/(2j + 1): ln m = 2·Σ f^(2j+1)/(2j+1), f = (m−1)/(m+1); f² < 0.0295, so that the twelfth is below 2^-60. */
const LOG_SERIES = Array.from({ length: 12 }, (_, j) => 1 / (2 * j + 1));

/**
 * Normals of stream `stream` (a whole number below 2^32) under `seed` (a whole number from 0 to 2^53 − 1).
 * Streams are independent: sample i of a set takes stream i, so that its noise does not depend on the batch that
 * it runs in.
 */
export function seedNoise(seed: number, stream = 0): NoiseSource {
  checkWhole("seed", seed, Number.MAX_SAFE_INTEGER);
  checkWhole("stream", stream, WORD - 1);
  const words = new Uint32Array(4);
  let block = 0;
  let spare: number | null = null;
  return {
    fill(into) {
      let at = 0;
      if (spare !== null && into.length > 0) {
        into[at++] = spare;
        spare = null;
      }
      while (at < into.length) {
        drawBlock(seed, block++, stream, GAUSSIAN_DOMAIN, words);
        const x = 2 * fractionOf(words, 0) - 1;
        const y = 2 * fractionOf(words, 2) - 1;
        const s = x * x + y * y;
        if (s >= 1 || s === 0) continue;
        const factor = Math.sqrt((-2 * lnBelowOne(s)) / s);
        into[at++] = x * factor;
        if (at < into.length) into[at++] = y * factor;
        else spare = Math.fround(y * factor);
      }
    },
  };
}

/**
 * Noise of a batch [sampleIndices.length, …]: each sample's part comes from the stream of its own index. Filling
 * anything but whole samples is `E_SHAPE`.
 */
export function seedBatchNoise(seed: number, sampleIndices: readonly number[]): NoiseSource {
  const streams = sampleIndices.map((index) => seedNoise(seed, index));
  return {
    fill(into) {
      const sampleLength = into.length / streams.length;
      if (!Number.isInteger(sampleLength)) {
        const message = `${into.length} values of noise are no whole number for each of ${streams.length} samples`;
        throw new ArrowQuantError("E_SHAPE", message, {
          details: { valueCount: into.length, sampleCount: streams.length },
        });
      }
      streams.forEach((stream, i) => {
        stream.fill(into.subarray(i * sampleLength, (i + 1) * sampleLength));
      });
    },
  };
}

/** A whole number from 0 to `bound` − 1 (bound at most 2^32), all equally likely: that of sample `sampleIndex`. */
export function drawInteger(seed: number, sampleIndex: number, bound: number): number {
  checkWhole("seed", seed, Number.MAX_SAFE_INTEGER);
  checkWhole("sample index", sampleIndex, WORD - 1);
  checkWhole("bound − 1", bound - 1, WORD - 1);
  // A plain remainder would favour the small ones.
  const limit = WORD - (WORD % bound);
  const words = new Uint32Array(4);
  for (let block = 0; ; block++) {
    drawBlock(seed, block, sampleIndex, INTEGER_DOMAIN, words);
    for (const word of words) if (word < limit) return word % bound;
  }
}

/** Philox4x32-10: `words` holds the counter, and the result then; the key is two words. All are unsigned. */
export function philox(words: Uint32Array, key0: number, key1: number): void {
  let c0 = words[0] as number;
  let c1 = words[1] as number;
  let c2 = words[2] as number;
  let c3 = words[3] as number;
  let k0 = key0;
  let k1 = key1;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + WEYL_0) | 0;
    k1 = (k1 + WEYL_1) | 0;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

function drawBlock(seed: number, block: number, stream: number, domain: number, words: Uint32Array): void {
  words[0] = block % WORD;
  words[1] = Math.floor(block / WORD);
  words[2] = stream;
  words[3] = domain;
  philox(words, seed % WORD, Math.floor(seed / WORD));
}

/** The high 32 bits of the product of two words; unsigned, no partial sum passes 2^32. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = Math.imul(aHigh, bLow) + (Math.imul(aLow, bLow) >>> 16);
  const middle = Math.imul(aLow, bHigh) + (low & 0xffff);
  return (Math.imul(aHigh, bHigh) + (low >>> 16) + (middle >>> 16)) | 0;
}

/** 53 bits of words `at` and `at + 1` as a fraction in [0, 1). */
function fractionOf(words: Uint32Array, at: number): number {
  return (((words[at] as number) >>> 5) * 2 ** 26 + ((words[at + 1] as number) >>> 6)) / 2 ** 53;
}

/** ln x for 0 < x < 1, within a few units in the last place. */
export function lnBelowOne(x: number): number {
  let mantissa = x;
  let exponent = 0;
  while (mantissa < Math.SQRT1_2) {
    mantissa *= 2;
    exponent--;
  }
  const f = (mantissa - 1) / (mantissa + 1);
  const square = f * f;
  let sum = 0;
  for (let j = LOG_SERIES.length - 1; j >= 0; j--) sum = sum * square + (LOG_SERIES[j] as number);
  return exponent * Math.LN2 + 2 * f * sum;
}

function checkWhole(what: string, value: number, largest: number): void {
  if (Number.isSafeInteger(value) && value >= 0 && value <= largest) return;
  throw new ArrowQuantError("E_INTEGER", `${what} ${value} is no whole number from 0 to ${largest}`, {
    details: { what, value, largest },
  });
}
