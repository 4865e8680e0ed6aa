/** Samples of the original and the quantized model beside each other, as one PNG. */
import { ArrowQuantError } from "../errors.js";

export interface ImageGrid {
  /** null: `reason` says why the samples are no picture. */
  readonly png: Uint8Array | null;
  readonly reason: string | null;
  /** Pairs in the picture: the first ones of the samples, as many as there is room for. */
  readonly pairCount: number;
}

/** Most pairs shown: eight rows of four are taken in at a glance. */
const MAX_PAIRS = 32;
const PAIRS_PER_ROW = 4;
/** Most pixels of the picture, 64 MiB of RGBA while it is made. */
const MAX_PIXELS = 16 * 1024 ** 2;
/** Images smaller than this are enlarged by a whole factor: 16 pixels are a stamp on today's screens. */
const LEAST_SIDE = 64;
/** Pixels between an original and its quantized twin, and around pairs. */
const PAIR_GAP = 1;
const MARGIN = 4;
/** Grey between twins, white around pairs: neither is lost beside a dark picture. */
const PAIR_GAP_VALUE = 128;
const MARGIN_VALUE = 255;
/**
 * Farthest that pictures in [−1, 1] overshoot, with room: samplers that do not clip miss by a few percent. Four
 * channels beyond it are latents (of Stable Diffusion, which reach 4 and more), not RGBA.
 */
const LARGEST_RGBA = 1.5;

/**
 * Draws pairs original | quantized of samples [count, channels, height, width] in [−1, 1] (values beyond are
 * clipped). One channel is grey, three are RGB, four RGBA; anything else is no picture. Throws `E_SHAPE` where the
 * lengths are not those of the shape.
 */
export async function drawImageGrid(
  original: Float32Array,
  quantized: Float32Array,
  shape: readonly [count: number, channels: number, height: number, width: number],
): Promise<ImageGrid> {
  const [count, channels, height, width] = shape;
  const length = count * channels * height * width;
  if (original.length !== length || quantized.length !== length) {
    const message = `samples of ${original.length} and ${quantized.length} values do not have shape [${shape}]`;
    throw new ArrowQuantError("E_SHAPE", message, {
      details: { originalLength: original.length, quantizedLength: quantized.length, shape },
    });
  }
  const factor = Math.max(1, Math.ceil(LEAST_SIDE / Math.max(height, width)));
  const cell = {
    width: 2 * width * factor + PAIR_GAP + MARGIN,
    height: height * factor + MARGIN,
  };
  const pairCount = Math.min(count, MAX_PAIRS, Math.floor(MAX_PIXELS / (cell.width * cell.height)));
  const reason = findReason(original, quantized, channels, length, pairCount);
  if (reason !== null) return { png: null, reason, pairCount: 0 };

  const columns = Math.min(pairCount, PAIRS_PER_ROW);
  const size = {
    width: columns * cell.width + MARGIN,
    height: Math.ceil(pairCount / columns) * cell.height + MARGIN,
  };
  const data = new Uint8Array(size.width * size.height * channels).fill(MARGIN_VALUE);
  const canvas: Canvas = { ...size, channels, data };
  for (let i = 0; i < pairCount; i++) {
    const left = MARGIN + (i % columns) * cell.width;
    const top = MARGIN + Math.floor(i / columns) * cell.height;
    const image = { height, width, factor, offset: i * channels * height * width };
    const gap = left + width * factor;
    paintImage(canvas, original, image, left, top);
    paintGap(canvas, gap, top, height * factor);
    paintImage(canvas, quantized, image, gap + PAIR_GAP, top);
  }
  const { encode } = await import("fast-png");
  return { png: encode({ ...canvas, depth: 8 }), reason: null, pairCount };
}

interface Canvas {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly data: Uint8Array;
}

interface ImagePlace {
  readonly height: number;
  readonly width: number;
  readonly factor: number;
  /** First element of the sample. */
  readonly offset: number;
}

function findReason(
  original: Float32Array,
  quantized: Float32Array,
  channels: number,
  length: number,
  pairCount: number,
): string | null {
  if (channels !== 1 && channels !== 3 && channels !== 4) {
    return `samples of ${channels} channels are latents, not pictures`;
  }
  if (length === 0) return "the samples are empty";
  if (pairCount === 0) return "the samples are too large for a picture of them";
  for (const [whose, samples] of [["original", original] as const, ["quantized", quantized] as const]) {
    const at = samples.findIndex((value) => !Number.isFinite(value));
    if (at !== -1) return `samples of the ${whose} model hold ${samples[at]}`;
  }
  if (channels !== 4) return null;
  const largest = original.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return largest > LARGEST_RGBA ? `samples of 4 channels that reach ${largest.toFixed(1)} are latents` : null;
}

/** A planar image in [−1, 1] as interleaved bytes, each pixel a square of `factor`. */
function paintImage(canvas: Canvas, samples: Float32Array, image: ImagePlace, left: number, top: number): void {
  const { height, width, factor, offset } = image;
  const { channels, data } = canvas;
  for (let y = 0; y < height * factor; y++) {
    for (let x = 0; x < width * factor; x++) {
      const source = offset + Math.floor(y / factor) * width + Math.floor(x / factor);
      const target = ((top + y) * canvas.width + left + x) * channels;
      for (let c = 0; c < channels; c++) {
        const value = Math.min(Math.max(samples[source + c * height * width] as number, -1), 1);
        data[target + c] = Math.round((value + 1) * 127.5);
      }
    }
  }
}

function paintGap(canvas: Canvas, left: number, top: number, height: number): void {
  const { channels, data } = canvas;
  // Alpha, where there is one, stays opaque.
  const colours = Math.min(channels, 3);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * canvas.width + left) * channels;
    for (let c = 0; c < PAIR_GAP * channels; c++) {
      if (c % channels < colours) data[start + c] = PAIR_GAP_VALUE;
    }
  }
}
