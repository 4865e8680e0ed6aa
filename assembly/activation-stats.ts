/** Statistics of activations, per channel and as a histogram; what is added may come in pieces. */

/** Rows, or four times positions, whose sums are float32 before they go to float64. */
const BLOCK: i32 = 64;

/** Bits of the largest magnitude among `n` floats; from 0x7f800000 on one of them is NaN or infinite. */
export function largestMagnitudeBits(x: usize, n: i32): i32 {
  let largest: i32 = 0;
  const end = x + (<usize>n << 2);
  if (ASC_FEATURE_SIMD) {
    const mask = i32x4.splat(0x7fffffff);
    let most = i32x4.splat(0);
    for (; x + 16 <= end; x += 16) most = i32x4.max_s(most, v128.and(v128.load(x), mask));
    most = i32x4.max_s(most, i32x4.shuffle(most, most, 2, 3, 0, 1));
    largest = i32x4.extract_lane(i32x4.max_s(most, i32x4.shuffle(most, most, 1, 0, 3, 2)), 0);
  }
  for (; x < end; x += 4) {
    const bits = load<i32>(x) & 0x7fffffff;
    largest = select<i32>(bits, largest, bits > largest);
  }
  return largest;
}

// @ts-ignore: decorator
@inline
function addTo(at: usize, x: f32): void {
  store<f64>(at, load<f64>(at) + <f64>x);
}

// @ts-ignore: decorator
@inline
function lower(at: usize, x: f32): void {
  // Adding 0 takes the sign off −0: which of two zeros came first must not show.
  if (x < load<f32>(at)) store<f32>(at, x + 0);
}

// @ts-ignore: decorator
@inline
function raise(at: usize, x: f32): void {
  if (x > load<f32>(at)) store<f32>(at, x + 0);
}

/**
 * Adds `rows` of `channels` floats to the statistics of each channel: least, most (float32), sum, sum of squares
 * (float64).
 */
export function addRowStats(
  x: usize, rows: i32, channels: i32, least: usize, most: usize, sums: usize, squares: usize,
): void {
  const stride = <usize>channels << 2;
  for (let first = 0; first < rows; first += BLOCK, x += stride * BLOCK) {
    const end = x + stride * <usize>min<i32>(BLOCK, rows - first);
    let c = 0;
    if (ASC_FEATURE_SIMD) {
      for (; c <= channels - 4; c += 4) addFourChannels(x, end, stride, c, least, most, sums, squares);
    }
    for (; c < channels; ++c) {
      let from = x + (<usize>c << 2);
      let low = load<f32>(from), high = low;
      let sum: f32 = 0, square: f32 = 0;
      for (; from < end; from += stride) {
        const v = load<f32>(from);
        low = select<f32>(v, low, v < low);
        high = select<f32>(v, high, v > high);
        sum += v;
        square += v * v;
      }
      lower(least + (<usize>c << 2), low);
      raise(most + (<usize>c << 2), high);
      addTo(sums + (<usize>c << 3), sum);
      addTo(squares + (<usize>c << 3), square);
    }
  }
}

/** The same for channels c … c + 3 of one block. */
// @ts-ignore: decorator
@inline
function addFourChannels(
  x: usize, end: usize, stride: usize, c: i32, least: usize, most: usize, sums: usize, squares: usize,
): void {
  let from = x + (<usize>c << 2);
  let low = v128.load(from), high = low;
  let sum = f32x4.splat(0), square = sum;
  do {
    const v = v128.load(from);
    low = f32x4.pmin(low, v);
    high = f32x4.pmax(high, v);
    sum = f32x4.add(sum, v);
    square = f32x4.add(square, f32x4.mul(v, v));
    from += stride;
  } while (from < end);
  const zero = f32x4.splat(0);
  const atLeast = least + (<usize>c << 2), atMost = most + (<usize>c << 2);
  const oldLow = v128.load(atLeast), oldHigh = v128.load(atMost);
  v128.store(atLeast, v128.bitselect(f32x4.add(low, zero), oldLow, f32x4.lt(low, oldLow)));
  v128.store(atMost, v128.bitselect(f32x4.add(high, zero), oldHigh, f32x4.gt(high, oldHigh)));
  addFour(sums + (<usize>c << 3), sum);
  addFour(squares + (<usize>c << 3), square);
}

// @ts-ignore: decorator
@inline
function addFour(at: usize, x: v128): void {
  v128.store(at, f64x2.add(v128.load(at), f64x2.promote_low_f32x4(x)));
  const high = i64x2.shuffle(x, x, 1, 0);
  v128.store(at, f64x2.add(v128.load(at, 16), f64x2.promote_low_f32x4(high)), 16);
}

/**
 * Adds `channels` of `positions` floats each to the same statistics. Position j goes to lane j mod 4 of a sum, lanes
 * are added ((0 + 1) + 2) + 3.
 */
export function addChannelStats(
  x: usize, channels: i32, positions: i32, least: usize, most: usize, sums: usize, squares: usize,
): void {
  for (let c = 0; c < channels; ++c, least += 4, most += 4, sums += 8, squares += 8) {
    for (let first = 0; first < positions; first += 4 * BLOCK) {
      const n = min<i32>(4 * BLOCK, positions - first);
      addRun(x, n, least, most, sums, squares);
      x += <usize>n << 2;
    }
  }
}

/** One run of one channel. */
function addRun(x: usize, n: i32, least: usize, most: usize, sum: usize, square: usize): void {
  const end = x + (<usize>n << 2);
  let low = load<f32>(x), high = low;
  let s0: f32 = 0, s1: f32 = 0, s2: f32 = 0, s3: f32 = 0;
  let q0: f32 = 0, q1: f32 = 0, q2: f32 = 0, q3: f32 = 0;
  let lane = 0;
  if (ASC_FEATURE_SIMD) {
    const lastVector = x + (<usize>(n & -4) << 2);
    if (x < lastVector) {
      let lows = v128.load(x), highs = lows;
      let s = f32x4.splat(0), q = s;
      do {
        const v = v128.load(x);
        lows = f32x4.pmin(lows, v);
        highs = f32x4.pmax(highs, v);
        s = f32x4.add(s, v);
        q = f32x4.add(q, f32x4.mul(v, v));
        x += 16;
      } while (x < lastVector);
      s0 = f32x4.extract_lane(s, 0), s1 = f32x4.extract_lane(s, 1);
      s2 = f32x4.extract_lane(s, 2), s3 = f32x4.extract_lane(s, 3);
      q0 = f32x4.extract_lane(q, 0), q1 = f32x4.extract_lane(q, 1);
      q2 = f32x4.extract_lane(q, 2), q3 = f32x4.extract_lane(q, 3);
      lows = f32x4.pmin(lows, v128.shuffle<f32>(lows, lows, 2, 3, 0, 1));
      highs = f32x4.pmax(highs, v128.shuffle<f32>(highs, highs, 2, 3, 0, 1));
      low = f32x4.extract_lane(f32x4.pmin(lows, v128.shuffle<f32>(lows, lows, 1, 0, 3, 2)), 0);
      high = f32x4.extract_lane(f32x4.pmax(highs, v128.shuffle<f32>(highs, highs, 1, 0, 3, 2)), 0);
    }
  }
  for (; x < end; x += 4) {
    const v = load<f32>(x), vv = v * v;
    low = select<f32>(v, low, v < low);
    high = select<f32>(v, high, v > high);
    if (lane == 0) { s0 += v; q0 += vv; }
    else if (lane == 1) { s1 += v; q1 += vv; }
    else if (lane == 2) { s2 += v; q2 += vv; }
    else { s3 += v; q3 += vv; }
    lane = (lane + 1) & 3;
  }
  lower(least, low);
  raise(most, high);
  addTo(sum, s0 + s1 + s2 + s3);
  addTo(square, q0 + q1 + q2 + q3);
}

/**
 * Counts `n` floats, each of magnitude below half·(1/factor), into u32[2·half]: bin half + floor(x·factor). A product
 * that underflows to −0 belongs to the bin below zero.
 */
export function addToHistogram(x: usize, n: i32, histogram: usize, half: i32, factor: f32): void {
  const middle = histogram + (<usize>half << 2);
  const end = x + (<usize>n << 2);
  if (ASC_FEATURE_SIMD) {
    const factors = f32x4.splat(factor), zero = f32x4.splat(0);
    for (; x + 16 <= end; x += 16) {
      const v = v128.load(x);
      const t = f32x4.floor(f32x4.mul(v, factors));
      // A mask is −1 where it holds.
      const isLost = v128.and(f32x4.lt(v, zero), f32x4.eq(t, zero));
      const bins = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(t), isLost), 2);
      count(middle + i32x4.extract_lane(bins, 0));
      count(middle + i32x4.extract_lane(bins, 1));
      count(middle + i32x4.extract_lane(bins, 2));
      count(middle + i32x4.extract_lane(bins, 3));
    }
  }
  for (; x < end; x += 4) {
    const v = load<f32>(x), t = floor(v * factor);
    count(middle + ((<i32>t - i32(v < 0 && t == 0)) << 2));
  }
}

// @ts-ignore: decorator
@inline
function count(bin: usize): void {
  store<u32>(bin, load<u32>(bin) + 1);
}

/**
 * Doubles the range of u32[2·half] `times` times, merging neighbours: what was counted is where it would have been
 * counted with the wide range.
 */
export function widenHistogram(histogram: usize, half: i32, times: i32): void {
  // Beyond 31 nothing changes any more, and a shift would wrap.
  const shift = min<i32>(times, 31);
  const middle = histogram + (<usize>half << 2);
  for (let k = 0; k < half; ++k) moveBin(middle, k, k >> shift);
  for (let k = -1; k >= -half; --k) moveBin(middle, k, k >> shift);
}

// @ts-ignore: decorator
@inline
function moveBin(middle: usize, from: i32, to: i32): void {
  if (from == to) return;
  const at = middle + (from << 2), target = middle + (to << 2);
  store<u32>(target, load<u32>(target) + load<u32>(at));
  store<u32>(at, 0);
}
