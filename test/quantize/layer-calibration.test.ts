import fc from "fast-check";
import { describe, expect, it } from "vitest";

import type { LayerStatistics } from "../../dist/calibration/statistics.js";
import { equalizeImportance, layerCalibration, smoothingScales } from "../../dist/quantize/layer-calibration.js";

const positive = fc.float({ min: Math.fround(1e-3), max: 1000, noNaN: true });

/** Statistics of `channels` channels over two time bins that were counted differently. */
function statisticsOf(
  meansq: readonly number[],
  counts: readonly [number, number],
  colsPerChannel = 1,
): LayerStatistics {
  const channels = meansq.length / 2;
  const zeros = new Float32Array(meansq.length);
  return {
    value: "x",
    channels,
    cols: channels * colsPerChannel,
    colsPerChannel,
    secondMomentsOnly: false,
    absmax: Float32Array.from(meansq, Math.sqrt),
    min: zeros,
    max: Float32Array.from(meansq, Math.sqrt),
    mean: zeros,
    meansq: Float32Array.from(meansq),
    count: Float64Array.from(counts),
    histogram: new Uint32Array(0),
    histogramExponent: new Int32Array(2),
    hessian: null,
    heldBack: null,
    heldBackTime: null,
  };
}

describe("importance", () => {
  it("weighs time bins by what passed through them and has mean one", () => {
    // Channel 0: (1·3 + 5·1)/4 = 2, channel 1: (3·3 + 3·1)/4 = 3.
    const { importance } = layerCalibration(statisticsOf([1, 3, 5, 3], [3, 1], 2));
    expect([...(importance as Float32Array)]).toEqual([2, 2, 3, 3].map((x) => Math.fround(x / 2.5)));
  });

  it("is all ones where nothing ever passed", () => {
    const { importance } = layerCalibration(statisticsOf([0, 0, 0, 0], [3, 1]));
    expect([...(importance as Float32Array)]).toEqual([1, 1]);
  });

  it("of a divided input is that of the input over the squares, of mean one", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(positive, positive), { minLength: 1, maxLength: 20 }), (channels) => {
        const moments = channels.map(([moment]) => moment);
        const scales = Float32Array.from(channels, ([, scale]) => scale);
        const { importance } = layerCalibration(statisticsOf([...moments, ...moments], [1, 1]));
        const equalized = equalizeImportance(importance, scales, 1) as Float32Array;
        const divided = moments.map((moment, c) => moment / (scales[c] as number) ** 2);
        const mean = divided.reduce((sum, x) => sum + x, 0) / divided.length;
        for (const [c, value] of equalized.entries()) {
          expect(value).toBeCloseTo((divided[c] as number) / mean, 3 - Math.ceil(Math.log10(value + 1)));
        }
      }),
    );
  });
});

describe("smoothing scales", () => {
  const channels = fc.array(fc.tuple(positive, positive), { minLength: 1, maxLength: 30 });

  it("share each channel's range out by α: both sides' logs differ as the formula says", () => {
    fc.assert(
      fc.property(channels, fc.double({ min: 0, max: 1, noNaN: true }), (pairs, alpha) => {
        const a = Float32Array.from(pairs, ([x]) => x);
        const w = Float32Array.from(pairs, ([, x]) => x);
        const scales = smoothingScales(a, w, alpha);
        const log = (c: number) =>
          alpha * Math.log(a[c] as number) - (1 - alpha) * Math.log(w[c] as number) - Math.log(scales[c] as number);
        for (let c = 1; c < pairs.length; c++) {
          const spread = Math.max(...[...scales].map((s) => Math.abs(Math.log(s))));
          if (spread < Math.log(9e3)) expect(log(c)).toBeCloseTo(log(0), 4);
        }
      }),
    );
  });

  it("at α = 1/2 make the largest input and the largest weight of every channel equally large, up to one factor", () => {
    const scales = smoothingScales(Float32Array.of(8, 2, 50), Float32Array.of(2, 2, 0.5), 0.5);
    const [first, ...others] = [8, 2, 50].map(
      (a, c) => a / (scales[c] as number) / ([2, 2, 0.5][c] as number) / (scales[c] as number),
    );
    for (const other of others) expect(other).toBeCloseTo(first as number, 4);
  });

  it("leave channels alone that are zero on either side, and are positive and finite", () => {
    const scales = smoothingScales(Float32Array.of(0, 4, 1e30), Float32Array.of(3, 0, 1e-30), 0.7);
    expect([scales[0], scales[1]]).toEqual([1, 1]);
    for (const scale of scales) expect(scale > 0 && scale < Infinity).toBe(true);
  });
});
