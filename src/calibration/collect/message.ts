/**
 * What crosses between the parent and a statistics thread. The threads keep accumulators for as long as a pass lasts
 * and write their results straight into the statistics file; nothing but an acknowledgement comes back.
 */
import type { SerializedError } from "../../errors.js";
import type { ValueInfo } from "../statistics-info.js";

/** What a thread is started with. */
export interface ThreadSettings {
  readonly arenaBytes: number;
  /** The statistics file, already as long as it will be. */
  readonly outputPath: string;
}

/** Columns `begin` … `end` − 1. */
export interface ColumnBlock {
  readonly begin: number;
  readonly end: number;
}

/** Accumulators of one value. */
export interface UnitShape {
  /** For messages. */
  readonly key: string;
  readonly channels: number;
  readonly cols: number;
  readonly conv: ValueInfo["conv"];
  /** Whether it keeps the statistics per channel; of a value with several units the first does. */
  readonly keepsStatistics: boolean;
  /** Which part of the Hessian: none, all of it, or the rows and columns of two blocks. */
  readonly hessian: "none" | "whole" | readonly [ColumnBlock, ColumnBlock];
  readonly takesHeldBack: boolean;
  /** Elements of a channel of the largest image that rows are taken of; 0: they are not taken of images. */
  readonly channelElements: number;
}

export interface UnitSpec extends UnitShape {
  /** Where in the file the value's tensors begin, by what follows the value's name in theirs. */
  readonly byteOffsets: ReadonlyMap<string, number>;
}

/** What a unit makes of a value. */
export interface ValueUse {
  /** Index into the pass's units of this thread. */
  readonly unit: number;
  /** Elements of a channel that lie side by side: 1 where channels come last. */
  readonly inner: number;
  /** Of images; of other values 1 and `inner`. */
  readonly height: number;
  readonly width: number;
  /** Row numbers of X within the value, ascending. */
  readonly rows: Int32Array;
  /** Held-back rows before these; null: the rows go into the Hessian. */
  readonly firstHeldBackRow: number | null;
}

/** Elements `begin` … `end` − 1 passed at times of one bin. */
export interface ElementSegment {
  readonly bin: number;
  readonly begin: number;
  readonly end: number;
}

export type Request =
  | { readonly kind: "open"; readonly units: readonly UnitSpec[] }
  | {
      readonly kind: "add";
      /** Moved, not copied. */
      readonly data: Float32Array;
      /** Of a unit, bins never fall within a pass. Empty for held-back samples. */
      readonly segments: readonly ElementSegment[];
      readonly uses: readonly ValueUse[];
      /** What messages call the samples. */
      readonly samples: string;
    }
  | { readonly kind: "close" };

export interface NumberedRequest {
  readonly id: number;
  readonly request: Request;
}

export interface Reply {
  readonly id: number;
  /** null: done. */
  readonly error: SerializedError | null;
}
