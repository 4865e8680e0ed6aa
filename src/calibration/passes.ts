/**
 * Which accumulators are kept when: all of them where memory allows it, else in passes, each of which runs the graph
 * over all samples again.
 */
import { ArrowQuantError } from "../errors.js";
import type { ColumnBlock, UnitShape } from "./collect/message.js";
import { sharedBytes, unitBytes } from "./collect/unit.js";
import type { CalibrationValue } from "./values.js";

/**
 * A Hessian too large for one accumulator is put together from blocks of columns, two at a time: k blocks are
 * k·(k − 1)/2 accumulators and twice the work. Beyond this many blocks the graph would be run for the sake of a single
 * layer alone, over and over.
 */
const MAX_BLOCKS = 6;

/** One value to keep statistics of. */
export interface ValueWork {
  readonly value: CalibrationValue;
  /** Rows that go into the Hessian; 0: none is taken. */
  readonly hessianRows: number;
  readonly heldBackRows: number;
  /** Bytes of the value for a whole batch. */
  readonly batchBytes: number;
  readonly channelElements: number;
}

export interface PlannedUnit {
  readonly shape: UnitShape;
  /** Index into the works. */
  readonly work: number;
}

export interface Pass {
  /** Units of each thread. */
  readonly threads: readonly (readonly PlannedUnit[])[];
}

export interface PassPlan {
  readonly passes: readonly Pass[];
  /** Why a value's Hessian is not taken although it was wanted; by index of the work. */
  readonly refused: ReadonlyMap<number, string>;
}

export interface PassLimits {
  readonly threadCount: number;
  /** Of each thread. */
  readonly arenaBytes: number;
  /** All values of a pass, for one batch. */
  readonly batchBytes: number;
}

/** @throws E_MEMORY where not even the statistics of a single value fit */
export function planPasses(works: readonly ValueWork[], limits: PassLimits): PassPlan {
  const refused = new Map<number, string>();
  const passes: OpenPass[] = [];
  for (const [work, { value, hessianRows, heldBackRows, batchBytes, channelElements }] of works.entries()) {
    const base = { ...value, takesHeldBack: heldBackRows > 0, channelElements };
    const shapes = unitsOf(base, hessianRows, limits, (reason) => refused.set(work, reason));
    for (const shape of shapes) {
      const cost = costOf(shape, hessianRows);
      let last = passes.at(-1);
      if (last === undefined || !last.place({ shape, work }, cost, batchBytes)) {
        last = new OpenPass(limits);
        passes.push(last);
        if (!last.place({ shape, work }, cost, batchBytes)) throw tooLarge(shape, limits);
      }
    }
  }
  return { passes: passes.map(({ threads }) => ({ threads })), refused };
}

/** A pass that is being filled. */
class OpenPass {
  readonly threads: PlannedUnit[][];
  readonly #limits: PassLimits;
  readonly #costs: number[];
  readonly #works = new Set<number>();
  #batchBytes = 0;

  constructor(limits: PassLimits) {
    this.#limits = limits;
    this.threads = Array.from({ length: limits.threadCount }, () => []);
    this.#costs = this.threads.map(() => 0);
  }

  /** Gives the unit to the thread that has least to do of those with room; false where none has. */
  place(unit: PlannedUnit, cost: number, batchBytes: number): boolean {
    const isKnown = this.#works.has(unit.work);
    const moreBytes = isKnown ? 0 : batchBytes;
    if (this.#works.size > 0 && this.#batchBytes + moreBytes > this.#limits.batchBytes) return false;
    const byCost = this.threads.map((_, thread) => thread).sort((a, b) => this.#costOf(a) - this.#costOf(b) || a - b);
    const thread = byCost.find((candidate) => this.#fits(candidate, unit.shape));
    if (thread === undefined) return false;
    this.threads[thread]?.push(unit);
    this.#costs[thread] = this.#costOf(thread) + cost;
    this.#works.add(unit.work);
    this.#batchBytes += moreBytes;
    return true;
  }

  #costOf(thread: number): number {
    return this.#costs[thread] as number;
  }

  #fits(thread: number, shape: UnitShape): boolean {
    return arenaBytesOf([...(this.threads[thread] ?? []).map((unit) => unit.shape), shape]) <= this.#limits.arenaBytes;
  }
}

/** Arena bytes of a thread with these units. */
function arenaBytesOf(shapes: readonly UnitShape[]): number {
  return shapes.reduce((sum, shape) => sum + unitBytes(shape), sharedBytes(shapes));
}

type UnitBase = Omit<UnitShape, "keepsStatistics" | "hessian">;

/** The units of a value: one where its Hessian fits, else one for the statistics and one per pair of blocks. */
function unitsOf(
  { key, channels, cols, conv, takesHeldBack, channelElements }: UnitBase,
  hessianRows: number,
  limits: PassLimits,
  refuse: (reason: string) => void,
): UnitShape[] {
  const base = { key, channels, cols, conv, channelElements };
  const first = { ...base, keepsStatistics: true, takesHeldBack };
  const whole: UnitShape = { ...first, hessian: hessianRows > 0 ? "whole" : "none" };
  if (arenaBytesOf([whole]) <= limits.arenaBytes || hessianRows === 0) return [whole];
  const statistics: UnitShape = { ...first, hessian: "none" };
  for (let blockCount = 3; blockCount <= MAX_BLOCKS; blockCount++) {
    const parts = pairBlocks(cutColumns(cols, blockCount)).map(
      (hessian): UnitShape => ({ ...base, keepsStatistics: false, takesHeldBack: false, hessian }),
    );
    if (arenaBytesOf(parts.slice(0, 1)) <= limits.arenaBytes) return [statistics, ...parts];
  }
  const neededMib = Math.ceil((4 * cols * cols) / 1024 ** 2);
  refuse(`its Hessian has ${neededMib} MiB, a thread has ${Math.floor(limits.arenaBytes / 1024 ** 2)}: raise --memory`);
  return [statistics];
}

/** The first block is the largest, as the first pair is what is measured. */
function cutColumns(cols: number, blockCount: number): ColumnBlock[] {
  const width = Math.ceil(cols / blockCount);
  return Array.from({ length: Math.ceil(cols / width) }, (_, index) => ({
    begin: index * width,
    end: Math.min(cols, (index + 1) * width),
  }));
}

function pairBlocks(blocks: readonly ColumnBlock[]): [ColumnBlock, ColumnBlock][] {
  return blocks.flatMap((left, index) =>
    blocks.slice(index + 1).map((right): [ColumnBlock, ColumnBlock] => [left, right]),
  );
}

/** In multiplications, roughly: what threads are balanced by. */
function costOf({ hessian, cols }: UnitShape, hessianRows: number): number {
  const width = hessian === "none" ? 0 : hessian === "whole" ? cols : 2 * (hessian[0].end - hessian[0].begin);
  return (hessianRows * width * width) / 2 + cols;
}

function tooLarge(shape: UnitShape, { arenaBytes }: PassLimits): ArrowQuantError {
  const neededBytes = arenaBytesOf([shape]);
  return new ArrowQuantError(
    "E_MEMORY",
    `statistics of "${shape.key}" need ${neededBytes} bytes, a thread has ${arenaBytes}`,
    { hint: "give more with --memory, or use fewer --threads", details: { neededBytes, arenaBytes } },
  );
}
