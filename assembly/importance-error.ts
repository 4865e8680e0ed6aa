/**
 * Errors of a row weighted by the importance of its columns, in float64, in four interleaved lanes: the error of the
 * layer's output for inputs of these second moments that are independent of each other.
 */

/**
 * Adds Σ h·w², Σ h·ŵ² and Σ h·(w − ŵ)² of one row of `n` elements, at least one, to `sums` (float64[3]). Element j
 * goes to lane j mod 4; lanes are added as ((0 + 1) + 2) + 3. All three are padded with zeros to a multiple of four.
 */
export function addImportanceSums(weights: usize, rebuilt: usize, importance: usize, n: i32, sums: usize): void {
  if (ASC_FEATURE_SIMD) addImportanceSumsSimd(weights, rebuilt, importance, n, sums);
  else addImportanceSumsScalar(weights, rebuilt, importance, n, sums);
}

// @ts-ignore: decorator
@inline
function addTo(sums: usize, source2: f64, rebuilt2: f64, error2: f64): void {
  store<f64>(sums, load<f64>(sums) + source2);
  store<f64>(sums, load<f64>(sums, 8) + rebuilt2, 8);
  store<f64>(sums, load<f64>(sums, 16) + error2, 16);
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

function addImportanceSumsSimd(weights: usize, rebuilt: usize, importance: usize, n: i32, sums: usize): void {
  let source0 = f64x2.splat(0);
  let source1 = source0;
  let rebuilt0 = source0;
  let rebuilt1 = source0;
  let error0 = source0;
  let error1 = source0;
  const end = weights + (n << 2);
  do {
    const w0 = f64x2.promote_low_f32x4(v128.load64_zero(weights));
    const w1 = f64x2.promote_low_f32x4(v128.load64_zero(weights, 8));
    const v0 = f64x2.promote_low_f32x4(v128.load64_zero(rebuilt));
    const v1 = f64x2.promote_low_f32x4(v128.load64_zero(rebuilt, 8));
    const h0 = f64x2.promote_low_f32x4(v128.load64_zero(importance));
    const h1 = f64x2.promote_low_f32x4(v128.load64_zero(importance, 8));
    const e0 = f64x2.sub(w0, v0);
    const e1 = f64x2.sub(w1, v1);
    source0 = f64x2.add(source0, f64x2.mul(f64x2.mul(w0, w0), h0));
    source1 = f64x2.add(source1, f64x2.mul(f64x2.mul(w1, w1), h1));
    rebuilt0 = f64x2.add(rebuilt0, f64x2.mul(f64x2.mul(v0, v0), h0));
    rebuilt1 = f64x2.add(rebuilt1, f64x2.mul(f64x2.mul(v1, v1), h1));
    error0 = f64x2.add(error0, f64x2.mul(f64x2.mul(e0, e0), h0));
    error1 = f64x2.add(error1, f64x2.mul(f64x2.mul(e1, e1), h1));
    weights += 16;
    rebuilt += 16;
    importance += 16;
  } while (weights < end);
  addTo(sums, addLanes(source0, source1), addLanes(rebuilt0, rebuilt1), addLanes(error0, error1));
}

function addImportanceSumsScalar(weights: usize, rebuilt: usize, importance: usize, n: i32, sums: usize): void {
  let s0: f64 = 0, s1: f64 = 0, s2: f64 = 0, s3: f64 = 0;
  let r0: f64 = 0, r1: f64 = 0, r2: f64 = 0, r3: f64 = 0;
  let e0: f64 = 0, e1: f64 = 0, e2: f64 = 0, e3: f64 = 0;
  const end = weights + (n << 2);
  do {
    let w: f64 = load<f32>(weights), v: f64 = load<f32>(rebuilt), h: f64 = load<f32>(importance);
    s0 += w * w * h;
    r0 += v * v * h;
    e0 += (w - v) * (w - v) * h;

    w = load<f32>(weights, 4);
    v = load<f32>(rebuilt, 4);
    h = load<f32>(importance, 4);
    s1 += w * w * h;
    r1 += v * v * h;
    e1 += (w - v) * (w - v) * h;

    w = load<f32>(weights, 8);
    v = load<f32>(rebuilt, 8);
    h = load<f32>(importance, 8);
    s2 += w * w * h;
    r2 += v * v * h;
    e2 += (w - v) * (w - v) * h;

    w = load<f32>(weights, 12);
    v = load<f32>(rebuilt, 12);
    h = load<f32>(importance, 12);
    s3 += w * w * h;
    r3 += v * v * h;
    e3 += (w - v) * (w - v) * h;

    weights += 16;
    rebuilt += 16;
    importance += 16;
  } while (weights < end);
  addTo(sums, s0 + s1 + s2 + s3, r0 + r1 + r2 + r3, e0 + e1 + e2 + e3);
}
