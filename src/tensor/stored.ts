/** A stored chunk in the normal form that the rebuilding kernels take, whichever kind of file it came from. */

export interface StoredSpec {
  /** Width of the codes' values. */
  readonly bits: number;
  /** Width in which codes are packed: `bits`, or 8 where a plain V2 file holds one code per byte. */
  readonly storageBits: number;
  readonly groupSize: number;
  readonly superGroupSize: number | null;
  readonly scaleBits: number | null;
  readonly zeroPointBits: number | null;
  readonly isR2q: boolean;
}

export interface StoredChunk extends StoredSpec {
  readonly rows: number;
  readonly cols: number;
  readonly data: Uint8Array;
  readonly scales: Float32Array;
  readonly zeroPoints: Float32Array | null;
  readonly scaleCodes: Uint8Array | null;
  readonly zeroPointCodes: Uint8Array | null;
  readonly residualScaleCodes: Uint8Array | null;
  /** One per input channel; each covers `cols / length` consecutive columns. */
  readonly equalizationScales: Float32Array | null;
}
