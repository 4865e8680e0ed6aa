/** Hessians, their factors, and GPTQ as the paper has it, in float64 (arXiv 2210.17323, algorithm 1). */
import { type ColumnOrder, type FactorOptions, factorLength, HessianFactor } from "../../dist/kernels/factor.js";
import type { Kernels } from "../../dist/kernels/load.js";

export interface FactoredHessian extends ColumnOrder {
  factor: Float32Array;
}

/** Uniform numbers from 0 to 1, the same every time. */
export function uniforms(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
}

let widestFactor = new Float32Array(0);
const syntheticFactors = new Map<number, FactoredHessian>();

/** A factor that no Hessian was needed for: any T does. Columns come in any order, some of them dead. */
export function syntheticFactor(cols: number): FactoredHessian {
  const known = syntheticFactors.get(cols);
  if (known !== undefined) return known;
  const length = factorLength(cols);
  if (length > widestFactor.length) {
    const uniform = uniforms(1);
    // Panels of fewer columns come first, so one factor serves all.
    widestFactor = Float32Array.from({ length: factorLength(Math.max(cols, 2200)) }, () => (uniform() - 0.5) / 16);
  }
  const uniform = uniforms(cols);
  const order = Int32Array.from({ length: cols }, (_, c) => c);
  for (let c = cols - 1; c > 0; c--) {
    const other = Math.floor(uniform() * (c + 1));
    [order[c], order[other]] = [order[other] as number, order[c] as number];
  }
  const deadColumns = Uint8Array.from(order, (_, c) => (c % 41 === 17 ? 1 : 0));
  const made = { factor: widestFactor.subarray(0, length), order, deadColumns };
  syntheticFactors.set(cols, made);
  return made;
}

/** Where T's element (row, col), row < col, stands in a factor; D's where they are equal. */
export function factorIndex(row: number, col: number): number {
  const panel = col >> 3;
  return 32 * panel * (panel + 1) + 8 * row + (col & 7);
}

/** null where the kernels find no factor. */
export function factorHessian(
  kernels: Kernels,
  hessian: ArrayLike<number>,
  cols: number,
  options: Partial<FactorOptions> = {},
): FactoredHessian | null {
  const factoring = new HessianFactor(kernels, cols);
  factoring.hessian().set(hessian);
  if (!factoring.factor({ order: true, equalizationScales: null, ...options })) return null;
  const factor = new Float32Array(factorLength(cols));
  let length = 0;
  factoring.forEachPanel((panel) => {
    factor.set(panel, length);
    length += panel.length;
  });
  if (length !== factor.length) throw new Error(`${length} floats of ${factor.length}`);
  return { factor, ...factoring.columnOrder() };
}

/** Correlated inputs of very different sizes, [count, cols]; column `dead` is always zero. */
export function correlatedInputs(count: number, cols: number, seed: number, dead = -1): Float64Array {
  const uniform = uniforms(seed);
  const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  const hidden = 6;
  const mix = Float64Array.from({ length: hidden * cols }, normal);
  const sizes = Float64Array.from({ length: cols }, () => Math.exp(normal()));
  const inputs = new Float64Array(count * cols);
  for (let row = 0; row < count; row++) {
    const causes = Array.from({ length: hidden }, normal);
    for (let c = 0; c < cols; c++) {
      const common = causes.reduce((sum, cause, k) => sum + cause * (mix[k * cols + c] as number), 0);
      inputs[row * cols + c] = c === dead ? 0 : (sizes[c] as number) * (common + 0.5 * normal());
    }
  }
  return inputs;
}

/** XᵀX/n. */
export function gramOf(inputs: ArrayLike<number>, cols: number): Float64Array {
  const count = inputs.length / cols;
  const gram = new Float64Array(cols * cols);
  for (let row = 0; row < count; row++) {
    for (let i = 0; i < cols; i++) {
      const x = inputs[row * cols + i] as number;
      for (let j = 0; j < cols; j++) {
        gram[i * cols + j] = (gram[i * cols + j] as number) + (x * (inputs[row * cols + j] as number)) / count;
      }
    }
  }
  return gram;
}

/** H, damped by 1 % of the mean of its live diagonal, dead columns those of the unit matrix, in visiting order. */
export function dampedInOrder(hessian: ArrayLike<number>, { order, deadColumns }: ColumnOrder): Float64Array {
  const cols = order.length;
  const live = [...order].filter((c) => deadColumns[c] === 0);
  const damp = (0.01 * live.reduce((sum, c) => sum + (hessian[c * (cols + 1)] as number), 0)) / live.length;
  const damped = new Float64Array(cols * cols);
  for (let i = 0; i < cols; i++) {
    for (let j = 0; j < cols; j++) {
      const [row, col] = [order[i] as number, order[j] as number];
      const value = hessian[row * cols + col] as number;
      damped[i * cols + j] = i !== j ? value : deadColumns[row] === 1 ? 1 : value + damp;
    }
  }
  return damped;
}

/** Upper triangular U with A⁻¹ = UᵀU. */
export function inverseFactor(matrix: Float64Array, n: number): Float64Array {
  const work = matrix.slice();
  const inverse = new Float64Array(n * n);
  for (let i = 0; i < n; i++) inverse[i * (n + 1)] = 1;
  // Gauss and Jordan; the matrix is positive definite, so no pivots are looked for.
  for (let k = 0; k < n; k++) {
    const pivot = work[k * (n + 1)] as number;
    for (const each of [work, inverse])
      for (let j = 0; j < n; j++) each[k * n + j] = (each[k * n + j] as number) / pivot;
    for (let i = 0; i < n; i++) {
      const factor = work[i * n + k] as number;
      if (i === k || factor === 0) continue;
      for (const each of [work, inverse]) {
        for (let j = 0; j < n; j++)
          each[i * n + j] = (each[i * n + j] as number) - factor * (each[k * n + j] as number);
      }
    }
  }
  const upper = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = i; j < n; j++) {
      let sum = inverse[i * n + j] as number;
      for (let k = 0; k < i; k++) sum -= (upper[k * n + i] as number) * (upper[k * n + j] as number);
      upper[i * n + j] = i === j ? Math.sqrt(sum) : sum / (upper[i * (n + 1)] as number);
    }
  }
  return upper;
}

export interface PlainRow {
  /** Natural order. */
  codes: number[];
  rebuilt: number[];
  /** w/s + z of each column as it was quantized, natural order. */
  values: number[];
}

/** One row: column after column, each error over the diagonal of U times U's row taken off the columns to come. */
export function plainGptq(
  row: ArrayLike<number>,
  upper: Float64Array,
  { order, deadColumns }: ColumnOrder,
  grid: (col: number) => { scale: number; zeroPoint: number; largest: number },
): PlainRow {
  const cols = order.length;
  const left = Float64Array.from(order, (c) => (deadColumns[c] === 1 ? 0 : (row[c] as number)));
  const result: PlainRow = { codes: [], rebuilt: [], values: [] };
  for (let i = 0; i < cols; i++) {
    const col = order[i] as number;
    const { scale, zeroPoint, largest } = grid(col);
    const value = scale === 0 ? zeroPoint : (left[i] as number) / scale + zeroPoint;
    const code = Math.round(Math.min(largest, Math.max(0, value)));
    const rebuilt = (code - zeroPoint) * scale;
    const error = ((left[i] as number) - rebuilt) / (upper[i * (cols + 1)] as number);
    for (let j = i + 1; j < cols; j++) left[j] = (left[j] as number) - error * (upper[i * cols + j] as number);
    result.codes[col] = code;
    result.rebuilt[col] = rebuilt;
    result.values[col] = value;
  }
  return result;
}

/** tr(Δ·H·Δᵀ), Δ = W − Ŵ. */
export function outputError(
  weights: ArrayLike<number>,
  rebuilt: ArrayLike<number>,
  hessian: ArrayLike<number>,
  cols: number,
): number {
  let total = 0;
  for (let start = 0; start < weights.length; start += cols) {
    const delta = Float64Array.from(
      { length: cols },
      (_, c) => (weights[start + c] as number) - (rebuilt[start + c] as number),
    );
    for (let i = 0; i < cols; i++) {
      let sum = 0;
      for (let j = 0; j < cols; j++) sum += (hessian[i * cols + j] as number) * (delta[j] as number);
      total += sum * (delta[i] as number);
    }
  }
  return total;
}
