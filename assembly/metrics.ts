/**
 * The five error sums of a row, in float64, in four interleaved lanes.
 *
 * Σ w², Σ ŵ² and Σ (w − ŵ)² are summed; Σ w·ŵ is half of (Σ w² + Σ ŵ² − Σ (w − ŵ)²), which is the same number
 * and loses nothing: the cosine it is for is wanted to an absolute, not a relative, error. It saves a fifth
 * of the time.
 */

/**
 * Adds the sums of one row of `n` elements, at least one, to `sums` (float64[5]: Σ w·ŵ, Σ w², Σ ŵ², Σ (w −
 * ŵ)², max |w − ŵ|). Element j goes to lane j mod 4; lanes are added as ((0 + 1) + 2) + 3. Both rows are
 * padded with zeros to a multiple of four.
 */
export function addRowSums(weights: usize, rebuilt: usize, n: i32, sums: usize): void {
  if (ASC_FEATURE_SIMD) addRowSumsSimd(weights, rebuilt, n, sums);
  else addRowSumsScalar(weights, rebuilt, n, sums);
}

/**
 * Adds a row's sums to those at `sums`; `largest2` is the square of its largest error, whose root is exact.
 */
// @ts-ignore: decorator
@inline
function addSums(sums: usize, source2: f64, rebuilt2: f64, error2: f64, largest2: f64): void {
  store<f64>(sums, load<f64>(sums) + (source2 + rebuilt2 - error2) * 0.5);
  store<f64>(sums, load<f64>(sums, 8) + source2, 8);
  store<f64>(sums, load<f64>(sums, 16) + rebuilt2, 16);
  store<f64>(sums, load<f64>(sums, 24) + error2, 24);
  store<f64>(sums, max<f64>(load<f64>(sums, 32), sqrt<f64>(largest2)), 32);
}

// @ts-ignore: decorator
@inline
function addLanes(low: v128, high: v128): f64 {
  return (
    f64x2.extract_lane(low, 0) +
    f64x2.extract_lane(low, 1) +
    f64x2.extract_lane(high, 0) +
    f64x2.extract_lane(high, 1)
  );
}

function addRowSumsSimd(weights: usize, rebuilt: usize, n: i32, sums: usize): void {
  let source0 = f64x2.splat(0);
  let source1 = source0;
  let rebuilt0 = source0;
  let rebuilt1 = source0;
  let error0 = source0;
  let error1 = source0;
  let largest0 = source0;
  let largest1 = source0;
  const end = weights + (n << 2);
  do {
    // Promoting straight from memory is one instruction on x86, from a register two or three.
    const w0 = f64x2.promote_low_f32x4(v128.load64_zero(weights));
    const w1 = f64x2.promote_low_f32x4(v128.load64_zero(weights, 8));
    const v0 = f64x2.promote_low_f32x4(v128.load64_zero(rebuilt));
    const v1 = f64x2.promote_low_f32x4(v128.load64_zero(rebuilt, 8));
    const e0 = f64x2.sub(w0, v0);
    const e1 = f64x2.sub(w1, v1);
    const ee0 = f64x2.mul(e0, e0);
    const ee1 = f64x2.mul(e1, e1);
    source0 = f64x2.add(source0, f64x2.mul(w0, w0));
    source1 = f64x2.add(source1, f64x2.mul(w1, w1));
    rebuilt0 = f64x2.add(rebuilt0, f64x2.mul(v0, v0));
    rebuilt1 = f64x2.add(rebuilt1, f64x2.mul(v1, v1));
    error0 = f64x2.add(error0, ee0);
    error1 = f64x2.add(error1, ee1);
    largest0 = f64x2.pmax(largest0, ee0);
    largest1 = f64x2.pmax(largest1, ee1);
    weights += 16;
    rebuilt += 16;
  } while (weights < end);
  largest0 = f64x2.pmax(largest0, largest1);
  const largest = max<f64>(f64x2.extract_lane(largest0, 0), f64x2.extract_lane(largest0, 1));
  addSums(sums, addLanes(source0, source1), addLanes(rebuilt0, rebuilt1), addLanes(error0, error1), largest);
}

function addRowSumsScalar(weights: usize, rebuilt: usize, n: i32, sums: usize): void {
  let s0: f64 = 0, s1: f64 = 0, s2: f64 = 0, s3: f64 = 0;
  let r0: f64 = 0, r1: f64 = 0, r2: f64 = 0, r3: f64 = 0;
  let e0: f64 = 0, e1: f64 = 0, e2: f64 = 0, e3: f64 = 0;
  let largest: f64 = 0;
  const end = weights + (n << 2);
  do {
    let w: f64 = load<f32>(weights);
    let v: f64 = load<f32>(rebuilt);
    let ee = (w - v) * (w - v);
    s0 += w * w;
    r0 += v * v;
    e0 += ee;
    largest = select<f64>(ee, largest, ee > largest);

    w = load<f32>(weights, 4);
    v = load<f32>(rebuilt, 4);
    ee = (w - v) * (w - v);
    s1 += w * w;
    r1 += v * v;
    e1 += ee;
    largest = select<f64>(ee, largest, ee > largest);

    w = load<f32>(weights, 8);
    v = load<f32>(rebuilt, 8);
    ee = (w - v) * (w - v);
    s2 += w * w;
    r2 += v * v;
    e2 += ee;
    largest = select<f64>(ee, largest, ee > largest);

    w = load<f32>(weights, 12);
    v = load<f32>(rebuilt, 12);
    ee = (w - v) * (w - v);
    s3 += w * w;
    r3 += v * v;
    e3 += ee;
    largest = select<f64>(ee, largest, ee > largest);

    weights += 16;
    rebuilt += 16;
  } while (weights < end);
  addSums(sums, s0 + s1 + s2 + s3, r0 + r1 + r2 + r3, e0 + e1 + e2 + e3, largest);
}
