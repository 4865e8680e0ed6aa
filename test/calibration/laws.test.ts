/** What must hold of the choices that a calibration makes before it runs anything. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { planBatches, segmentBatch } from "../../dist/calibration/batches.js";
import { sharedBytes, unitBytes } from "../../dist/calibration/collect/unit.js";
import { chooseRows, rowQuota } from "../../dist/calibration/even-rows.js";
import { type PassLimits, planPasses, type ValueWork } from "../../dist/calibration/passes.js";
import { binTimes, findTimeRange, orderSamples } from "../../dist/calibration/time-bins.js";

const timeLists = fc
  .array(fc.oneof(fc.integer({ min: 0, max: 40 }), fc.double({ min: -5, max: 900, noNaN: true })), {
    minLength: 1,
    maxLength: 400,
  })
  .map((times) => Float64Array.from(times));

describe("held-back samples", () => {
  it("are every 8th of 16 and more, spread over time, and no sample is lost", () => {
    fc.assert(
      fc.property(timeLists, fc.integer({ min: 0, max: 12 }), (times, every) => {
        const { used, heldBack } = orderSamples(times, every);
        expect([...used, ...heldBack].sort((a, b) => a - b)).toEqual([...times.keys()]);
        for (const part of [used, heldBack]) {
          const visited = [...part].map((index) => times[index] as number);
          expect(visited).toEqual([...visited].sort((a, b) => a - b));
        }
        const expected = every === 0 || times.length < 16 ? 0 : Math.ceil((times.length - (every >> 1)) / every);
        expect(heldBack.length).toBe(expected);
      }),
    );
  });
});

describe("time bins", () => {
  it("cover the range without gaps, hold every sample once, and never part equal times", () => {
    fc.assert(
      fc.property(timeLists, fc.integer({ min: 1, max: 128 }), fc.boolean(), (times, maxBins, isKnown) => {
        const ascending = times.slice().sort();
        const range = findTimeRange(ascending, isKnown ? { start: 0, end: 50 } : null);
        const bins = binTimes(ascending, range, maxBins);
        expect(bins.length).toBeLessThanOrEqual(maxBins);
        expect([bins[0]?.start, bins.at(-1)?.end]).toEqual([range.start, range.end]);
        let first = 0;
        for (const [index, { start, end, value, count }] of bins.entries()) {
          expect(count).toBeGreaterThan(0);
          expect(end).toBeGreaterThan(start);
          if (index > 0) expect(start).toBe(bins[index - 1]?.end);
          const inside = ascending.subarray(first, first + count);
          for (const time of inside) expect(time >= start && time < end).toBe(true);
          expect(value).toBeCloseTo(inside.reduce((sum, time) => sum + time, 0) / count, 6);
          first += count;
        }
        expect(first).toBe(ascending.length);
        const distinct = new Set(ascending).size;
        if (distinct <= maxBins) expect(bins.length).toBe(distinct);
      }),
    );
  });

  it("hold about as many samples each where there are more times than bins", () => {
    const bins = binTimes(
      Float64Array.from({ length: 1000 }, (_, index) => index ** 2),
      { start: 0, end: 1e6 },
      128,
    );
    expect(bins.length).toBe(128);
    for (const { count } of bins) expect(Math.abs(count - 1000 / 128)).toBeLessThanOrEqual(1);
  });
});

describe("chosen rows", () => {
  it("are distinct, in order, and as many as the quota", () => {
    fc.assert(
      fc.property(fc.nat(5000), fc.nat(300), fc.nat(10_000), (positions, quota, rank) => {
        const rows = [...chooseRows(positions, quota, rank)];
        expect(rows.length).toBe(Math.min(positions, quota));
        for (const [index, row] of rows.entries()) {
          expect(row > (rows[index - 1] ?? -1) && row < positions).toBe(true);
        }
      }),
    );
  });

  it("add up to the limit over all samples, and prefer no sample", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 500 }), fc.nat(20_000), (samples, limit) => {
        const quotas = Array.from({ length: samples }, (_, rank) => rowQuota(rank, samples, limit));
        expect(quotas.reduce((sum, quota) => sum + quota, 0)).toBe(limit);
        expect(Math.max(...quotas) - Math.min(...quotas)).toBeLessThanOrEqual(1);
      }),
    );
  });

  it("prefer no position: one row of each of 1,000 samples is spread over all positions", () => {
    const hits = new Float64Array(10);
    for (let rank = 0; rank < 1000; rank++) {
      for (const row of chooseRows(640, 1, rank))
        hits[Math.floor(row / 64)] = (hits[Math.floor(row / 64)] as number) + 1;
    }
    for (const count of hits) expect(Math.abs(count - 100)).toBeLessThanOrEqual(5);
  });
});

describe("batches", () => {
  it("hold each sample once, in order of time, only with its like, and know their bins", () => {
    fc.assert(
      fc.property(timeLists, fc.integer({ min: 1, max: 20 }), (times, maxSamples) => {
        const order = orderSamples(times, 8);
        const keyOf = (sample: number) => String(sample % 3);
        const batches = planBatches(order, { maxSamples, keyOf });
        for (const [isHeldBack, expected] of [
          [false, order.used],
          [true, order.heldBack],
        ] as const) {
          const mine = batches.filter((batch) => batch.isHeldBack === isHeldBack);
          expect(mine.flatMap(({ samples }) => samples)).toEqual([...expected]);
          let rank = 0;
          for (const { samples, firstRank } of mine) {
            expect(firstRank).toBe(rank);
            expect(samples.length).toBeLessThanOrEqual(maxSamples);
            expect(new Set(samples.map(keyOf)).size).toBe(1);
            rank += samples.length;
          }
        }
        const ascending = Float64Array.from(order.used, (sample) => times[sample] as number);
        const bins = binTimes(ascending, findTimeRange(ascending, null), 128);
        let end = 0;
        const ends = bins.map(({ count }) => (end += count));
        for (const batch of batches.filter(({ isHeldBack }) => !isHeldBack)) {
          let next = 0;
          for (const { bin, first, count } of segmentBatch(batch, ends)) {
            expect(first).toBe(next);
            next += count;
            for (const sample of batch.samples.slice(first, first + count)) {
              const time = times[sample] as number;
              expect(time >= (bins[bin]?.start as number) && time < (bins[bin]?.end as number)).toBe(true);
            }
          }
          expect(next).toBe(batch.samples.length);
        }
      }),
    );
  });
});

describe("passes", () => {
  const works = fc.array(
    fc.record({
      cols: fc.integer({ min: 1, max: 3000 }),
      rows: fc.constantFrom(0, 500),
      batchBytes: fc.integer({ min: 1, max: 3_000_000 }),
    }),
    { minLength: 1, maxLength: 30 },
  );
  const toWork = ({ cols, rows, batchBytes }: { cols: number; rows: number; batchBytes: number }): ValueWork => ({
    value: { key: "v", inputs: ["v"], dtype: "F32", channelAxis: -1, channels: cols, conv: null, cols },
    hessianRows: rows,
    heldBackRows: 16,
    batchBytes,
    channelElements: 0,
  });
  const limits: PassLimits = { threadCount: 2, arenaBytes: 16 * 1024 ** 2, batchBytes: 4_000_000 };

  it("take every value and every product of its columns, within memory", () => {
    fc.assert(
      fc.property(works, (list) => {
        const { passes, refused } = planPasses(list.map(toWork), limits);
        const covered = list.map(({ cols }) => new Set<string>().add(`${cols}`));
        const statistics = list.map(() => 0);
        for (const { threads } of passes) {
          const inPass = new Set(threads.flat().map(({ work }) => work));
          const bytes = [...inPass].reduce((sum, work) => sum + (list[work]?.batchBytes as number), 0);
          expect(inPass.size === 1 || bytes <= limits.batchBytes).toBe(true);
          for (const units of threads) {
            const shapes = units.map(({ shape }) => shape);
            const arena = shapes.reduce((sum, shape) => sum + unitBytes(shape), sharedBytes(shapes));
            expect(arena).toBeLessThanOrEqual(limits.arenaBytes);
            for (const { shape, work } of units) {
              if (shape.keepsStatistics) statistics[work] = (statistics[work] as number) + 1;
              const cols = list[work]?.cols as number;
              const blocks =
                shape.hessian === "whole" ? [{ begin: 0, end: cols }] : shape.hessian === "none" ? [] : shape.hessian;
              for (const a of blocks)
                for (const b of blocks) covered[work]?.add(`${a.begin}-${a.end} ${b.begin}-${b.end}`);
            }
          }
        }
        expect(statistics).toEqual(list.map(() => 1));
        for (const [work, { cols, rows }] of list.entries()) {
          const pairs = [...(covered[work] as Set<string>)].slice(1);
          if (rows === 0 || refused.has(work)) expect(pairs).toEqual([]);
          else {
            const area = pairs.reduce((sum, pair) => {
              const [a = 0, b = 0, c = 0, d = 0] = pair.split(/[- ]/).map(Number);
              return sum + (b - a) * (d - c);
            }, 0);
            expect(area).toBe(cols * cols);
          }
        }
      }),
      { numRuns: 50 },
    );
  });

  it("refuse a Hessian that no number of blocks makes fit, and say why", () => {
    const { passes, refused } = planPasses([toWork({ cols: 9000, rows: 100, batchBytes: 1 })], limits);
    expect(refused.get(0)).toMatch(/309 MiB.*raise --memory/);
    expect(passes.flatMap(({ threads }) => threads.flat()).map(({ shape }) => shape.hessian)).toEqual(["none"]);
  });
});
