/** Compares the rows of one native file with its source: workers do the comparing, this adds up, in file order. */
import { closeSync, openSync } from "node:fs";
import type { Session } from "../engine/session.js";
import { ArrowQuantError } from "../errors.js";
import type { NativeRow } from "../formats/parquet/row.js";
import { readSourceScales } from "../formats/scale.js";
import { placeRows } from "../quantize/source-place.js";
import { isKept, packKeptRow, packRow, type RowPlace, RowTracker } from "../quantize/stored-rows.js";
import { DTYPES, type Dtype, keptDtype } from "../tensor/dtype.js";
import type { Component, TensorInfo } from "../tensor/info.js";
import { type BitWidth, countElements } from "../tensor/layout.js";
import { addSums, deriveMetrics, type ErrorSums, zeroSums } from "../tensor/metrics.js";
import type { SourceRows } from "../worker/messages.js";
import type { ValidatedLayer } from "./result.js";

/** Least cosine similarity of a layer by bit width, where no threshold is given. */
export const DEFAULT_THRESHOLDS: Readonly<Record<BitWidth, number>> = {
  2: 0.7,
  3: 0.8,
  4: 0.9,
  5: 0.92,
  6: 0.93,
  8: 0.95,
};

/** Rows under way at once per thread: one at work, one waiting. */
const ROWS_PER_THREAD = 2;

export interface ComponentComparison {
  readonly component: string;
  readonly layers: readonly ValidatedLayer[];
  readonly missing: readonly string[];
  readonly extra: readonly string[];
  readonly misshapen: readonly string[];
  readonly warnings: readonly string[];
}

/** What has been compared of a tensor so far. */
interface LayerTally {
  readonly tensor: TensorInfo;
  readonly row: NativeRow;
  readonly sums: ErrorSums;
  bytesOut: number;
  identical: boolean;
}

/** Sends rows to the workers, a few at a time. */
export class Comparer {
  readonly #component: Component;
  readonly #session: Session;
  readonly #signal: AbortSignal;
  readonly #onDone: (tensor: TensorInfo, byteCount: number, layerCount: number) => void;
  readonly #files: readonly { readonly fd: number; readonly path: string }[];
  readonly #tensors: ReadonlyMap<string, TensorInfo>;
  readonly #scales = new Map<string, Float32Array>();
  readonly #tracker = new RowTracker();
  readonly #tallies = new Map<string, LayerTally>();
  readonly #extra: string[] = [];
  readonly #misshapen: string[] = [];
  readonly #pending: Promise<() => void>[] = [];

  constructor(
    component: Component,
    session: Session,
    signal: AbortSignal,
    onDone: (tensor: TensorInfo, byteCount: number, layerCount: number) => void,
  ) {
    this.#component = component;
    this.#session = session;
    this.#signal = signal;
    this.#onDone = onDone;
    this.#files = component.files.map(({ path }) => ({ path, fd: openSync(path, "r") }));
    this.#tensors = new Map(component.tensors.map((tensor) => [tensor.name, tensor]));
  }

  async add(row: NativeRow): Promise<void> {
    this.#signal.throwIfAborted();
    const tensor = this.#tensors.get(row.layerName);
    if (tensor === undefined) {
      if (row.chunkIndex === 0) this.#extra.push(row.layerName);
      return;
    }
    if (!sameShape(row, tensor)) {
      if (row.chunkIndex === 0) this.#misshapen.push(row.layerName);
      return;
    }
    const place = this.#tracker.place(row);
    let tally = this.#tallies.get(row.layerName);
    if (tally === undefined) {
      tally = { tensor, row: withoutParts(row), sums: zeroSums(), bytesOut: 0, identical: true };
      this.#tallies.set(row.layerName, tally);
    }
    const source = await this.#sourceRows(tensor, place);
    const bytes = await this.#reserve(row);
    const answer = this.#compare(row, source, tally, bytes);
    answer.catch(() => undefined);
    this.#pending.push(answer);
    while (this.#pending.length >= ROWS_PER_THREAD * this.#session.threads) await this.#settleNext();
  }

  async settle(): Promise<void> {
    while (this.#pending.length > 0) await this.#settleNext();
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#pending);
    for (const { fd } of this.#files) closeSync(fd);
  }

  result(minAccuracy: number | null, warnings: readonly string[]): ComponentComparison {
    const found = new Set([...this.#tallies.keys(), ...this.#misshapen]);
    return {
      component: this.#component.name,
      layers: [...this.#tallies.values()].map((tally) => validatedLayer(this.#component.name, tally, minAccuracy)),
      missing: this.#component.tensors.map(({ name }) => name).filter((name) => !found.has(name)),
      extra: this.#extra,
      misshapen: this.#misshapen,
      warnings,
    };
  }

  async #settleNext(): Promise<void> {
    const next = this.#pending[0] as Promise<() => void>;
    const apply = await next;
    this.#pending.shift();
    apply();
  }

  async #reserve(row: NativeRow): Promise<number> {
    const byteCount = Math.min(this.#session.budget.capacity, 2 * row.data.byteLength);
    await this.#session.budget.acquire(byteCount, this.#signal);
    return byteCount;
  }

  /** Resolves to what adds the row's figures to its tally; called in file order. */
  async #compare(row: NativeRow, source: SourceRows, tally: LayerTally, reserved: number): Promise<() => void> {
    const { buffers, budget } = this.#session;
    const slabRows = slabRowsOf(source, this.#session.slabBytes);
    const { layerName, chunkIndex, chunkCount } = row;
    const done = (byteLength: number) => {
      tally.bytesOut += byteLength;
      const sourceBytes = (source.rows * source.cols * DTYPES[source.dtype].bits) / 8;
      this.#onDone(tally.tensor, sourceBytes, chunkIndex === chunkCount - 1 ? 1 : 0);
    };
    try {
      if (isKept(row)) {
        const byteLength = row.data.byteLength;
        const input = packKeptRow(row, buffers);
        const task = {
          kind: "compare-kept",
          source,
          storedDtype: row.storedDtype as Dtype,
          data: { byteOffset: 0, byteLength },
          slabRows,
          input,
        } as const;
        const reply = await this.#session.run(task, [input], this.#signal);
        buffers.give(reply.input);
        return () => {
          tally.identical &&= reply.identical;
          done(byteLength);
        };
      }
      const { buffer, parts, stored, equalizationScales } = packRow(row, buffers);
      const byteLength = Object.values(parts).reduce((sum, part) => sum + part.byteLength, 0);
      const task = { kind: "compare", source, stored, parts, equalizationScales, slabRows, input: buffer } as const;
      const reply = await this.#session.run(task, [buffer], this.#signal);
      buffers.give(reply.input);
      if (reply.nonFinite !== null) {
        const { row: at, col, value } = reply.nonFinite;
        throw new ArrowQuantError(
          "E_NONFINITE",
          `"${layerName}" of the source is ${value} at row ${at}, column ${col}`,
          {
            details: { tensor: layerName, row: at, col },
          },
        );
      }
      return () => {
        addSums(tally.sums, reply.sums);
        done(byteLength);
      };
    } finally {
      budget.release(reserved);
    }
  }

  async #sourceRows(tensor: TensorInfo, { firstRow, rows, cols }: RowPlace): Promise<SourceRows> {
    const { fd, path } = this.#files[tensor.location.file] as { fd: number; path: string };
    return {
      fd,
      path,
      tensorName: tensor.name,
      ...placeRows(tensor, firstRow),
      dtype: tensor.dtype,
      rows,
      cols,
      firstRow,
      scales: await this.#scalesOf(tensor, firstRow, rows),
    };
  }

  async #scalesOf(tensor: TensorInfo, firstRow: number, rows: number): Promise<Float32Array | null> {
    if (tensor.sourceScale === null) return null;
    let scales = this.#scales.get(tensor.name);
    if (scales === undefined) {
      scales = await readSourceScales(this.#component.files, tensor.sourceScale);
      this.#scales.set(tensor.name, scales);
    }
    return tensor.sourceScale.per === "tensor" ? scales : scales.slice(firstRow, firstRow + rows);
  }
}

function validatedLayer(component: string, tally: LayerTally, minAccuracy: number | null): ValidatedLayer {
  const { tensor, row, sums, bytesOut, identical } = tally;
  const kept = isKept(row);
  const metrics = kept ? null : deriveMetrics(sums);
  const bits = Number(row.quantType.slice(3));
  const threshold = kept ? null : (minAccuracy ?? DEFAULT_THRESHOLDS[bits as BitWidth]);
  return {
    name: tensor.name,
    component,
    shape: tensor.shape,
    dtype: tensor.dtype,
    quantType: row.quantType,
    groupSize: row.groupSize,
    method: row.method,
    parameterCount: countElements(tensor.shape),
    bytesIn: tensor.location.byteLength,
    bytesOut,
    identical: kept ? identical : null,
    metrics,
    threshold,
    // A NaN is not a pass.
    passed: metrics === null ? identical : metrics.cosineSimilarity >= (threshold as number),
  };
}

function sameShape(row: NativeRow, tensor: TensorInfo): boolean {
  const stored = tensor.sourceScale === null ? keptDtype(tensor.dtype) : "F32";
  return (
    row.dtype === tensor.dtype &&
    row.shape.length === tensor.shape.length &&
    row.shape.every((size, axis) => size === tensor.shape[axis]) &&
    (!isKept(row) || row.storedDtype === stored || row.storedDtype === null)
  );
}

/** Keeps a row's settings without holding on to its buffers. */
function withoutParts(row: NativeRow): NativeRow {
  const empty = new Uint8Array(0);
  return {
    ...row,
    data: empty,
    scales: null,
    zeroPoints: null,
    scaleCodes: null,
    zeroPointCodes: null,
    residualScaleCodes: null,
  };
}

function slabRowsOf(source: SourceRows, slabBytes: number): number {
  const rowBytes = Math.max(1, (source.cols * DTYPES[source.dtype].bits) / 8);
  return Math.max(1, Math.min(source.rows, Math.floor(slabBytes / rowBytes)));
}
