/**
 * The factored Hessian of a layer's inputs, as gptq wants it: H + λI = T·D·Tᵀ over columns in visiting order, T unit
 * upper triangular, D diagonal. A factor holds T above the diagonal and D on it, in panels of eight columns: panel p
 * has rows 0 … 8p + 7, eight floats each, so about half of the matrix. Columns are padded to whole panels by those of
 * the unit matrix.
 */
import { allocatedBytes } from "./arena.js";
import type { Kernels } from "./load.js";
import { PANEL } from "./regions.js";

/** Columns factored at a time (assembly/factor.ts, BLOCK_COLS). */
const BLOCK_COLS = 64;

/** How columns are taken. */
export interface ColumnOrder {
  /** [cols]: the natural column that is visited i-th. */
  readonly order: Int32Array;
  /** [cols], natural order: 1 where a column's input is always zero. */
  readonly deadColumns: Uint8Array;
}

export interface FactorOptions {
  /** What is added to the diagonal, in units of the mean of the columns that are not dead. */
  readonly damp?: number;
  /** Whether columns come in activation order (assembly/factor.ts), not in natural order with dead ones last. */
  readonly order: boolean;
  /** [channels], `cols` divides by their number: inputs are divided by them, so H by their products. */
  readonly equalizationScales: Float32Array | null;
}

/** 1 %, as the paper has it (arXiv 2210.17323). */
const DEFAULT_DAMP = 0.01;

/** Floats of a factor. */
export function factorLength(cols: number): number {
  const panels = Math.ceil(cols / PANEL);
  return ((PANEL * PANEL) / 2) * panels * (panels + 1);
}

function regionSizes(cols: number) {
  const padded = Math.ceil(cols / PANEL) * PANEL;
  return {
    hessian: 4 * padded * padded,
    order: 4 * cols,
    moved: cols,
    equalizationScales: 4 * cols,
    scratch: 4 * (2 * padded + BLOCK_COLS + 2 * BLOCK_COLS * padded),
  };
}

/** Factors one layer's Hessian in the arena. */
export class HessianFactor {
  readonly #kernels: Kernels;
  readonly #cols: number;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;
  readonly #deadColumns: Uint8Array;

  /** Arena bytes for that many columns, exactly. */
  static bytesNeeded(cols: number): number {
    return Object.values(regionSizes(cols)).reduce((sum, size) => sum + allocatedBytes(size), 0);
  }

  /** Resets the arena and lays everything out. */
  constructor(kernels: Kernels, cols: number) {
    this.#kernels = kernels;
    this.#cols = cols;
    this.#ptr = kernels.arena.allocateAll(regionSizes(cols));
    this.#deadColumns = new Uint8Array(cols);
  }

  /** float32 [cols, cols] to be filled with H; the upper triangle is enough. `factor` overwrites it. */
  hessian(): Float32Array {
    return this.#kernels.arena.floats(this.#ptr.hessian, this.#cols * this.#cols);
  }

  /**
   * Damps and factors what `hessian` was filled with. False where it is not positive definite even so, or not
   * finite: fill it anew before another try.
   */
  factor(options: FactorOptions): boolean {
    const { arena, exports } = this.#kernels;
    const ptr = this.#ptr;
    const cols = this.#cols;
    const { damp = DEFAULT_DAMP, equalizationScales } = options;
    if (equalizationScales !== null) {
      arena.floats(ptr.equalizationScales, equalizationScales.length).set(equalizationScales);
    }
    exports.completeHessian(
      ptr.hessian,
      cols,
      equalizationScales === null ? 0 : ptr.equalizationScales,
      equalizationScales === null ? cols : cols / equalizationScales.length,
    );
    const hessian = this.hessian();
    const diagonal = Float64Array.from({ length: cols }, (_, c) => hessian[c * (cols + 1)] as number);
    const live = diagonal.filter((x) => x !== 0);
    const mean = live.reduce((sum, x) => sum + x, 0) / Math.max(1, live.length);
    if (!live.every((x) => x > 0 && x < Infinity)) return false;
    this.#deadColumns.set(Uint8Array.from(diagonal, (x) => (x === 0 ? 1 : 0)));
    const order = arena.words(ptr.order, cols);
    // Dead columns stand last, as nothing is to be made good for them.
    order.set(Int32Array.from(diagonal, (_, c) => c).sort((a, b) => this.#isDead(a) - this.#isDead(b) || a - b));
    if (live.length < cols) exports.permuteHessian(ptr.hessian, cols, ptr.order, ptr.scratch, ptr.moved);
    const padded = Math.ceil(cols / PANEL) * PANEL;
    exports.padHessian(ptr.hessian, cols, padded, cols - live.length, damp * mean);
    const isPivoted = options.order ? 1 : 0;
    return exports.factorHessian(ptr.hessian, padded, live.length, isPivoted, ptr.order, ptr.scratch) === 1;
  }

  #isDead(col: number): number {
    return this.#deadColumns[col] as number;
  }

  /** Of the last `factor` that was true. */
  columnOrder(): ColumnOrder {
    const { arena } = this.#kernels;
    return { order: arena.words(this.#ptr.order, this.#cols).slice(), deadColumns: this.#deadColumns.slice() };
  }

  /**
   * The factor of the last `factor` that was true, panel by panel, `factorLength(cols)` floats in all.
   * @param write takes a view that is good until the next call
   */
  forEachPanel(write: (panel: Float32Array) => void): void {
    const { arena, exports } = this.#kernels;
    const panelCount = Math.ceil(this.#cols / PANEL);
    for (let p = 0; p < panelCount; p++) {
      exports.packFactorPanel(this.#ptr.hessian, panelCount * PANEL, p, this.#ptr.scratch);
      write(arena.floats(this.#ptr.scratch, PANEL * PANEL * (p + 1)));
    }
  }
}
