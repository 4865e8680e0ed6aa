/** What a quantization method is to the rest of the program, and what a spec must hold. */
import { ArrowQuantError } from "../../errors.js";
import type { RowQuantizer } from "../../kernels/exports.js";
import { BIT_WIDTHS, MAX_GROUP_SIZE, type MethodName, MIN_GROUP_SIZE, type QuantSpec } from "../../tensor/layout.js";

/** One way to choose codes, scales and zero points. */
export interface Method extends RowQuantizer {
  readonly name: MethodName;
  /** What it must be given beside the spec. */
  readonly needs: "weights" | "hessian";
  /** p of the Σ|w − ŵ|^p that it reduces. */
  readonly norm: number;
  /** Throws `E_CONFLICT` where the spec cannot be done by this method. */
  check(spec: QuantSpec): void;
}

/** Code bits of scales and zero points that FORMAT.md and the kernels allow. */
export const MIN_CODE_BITS = 2;
export const MAX_CODE_BITS = 8;

/** Checks what every method needs of a spec; throws `E_CONFIG` or `E_CONFLICT` naming the settings. */
export function checkSpec(spec: QuantSpec): void {
  const { bits, groupSize, scaleBits, zeroPointBits, superGroupSize } = spec;
  if (!BIT_WIDTHS.includes(bits)) {
    throw new ArrowQuantError("E_CONFIG", `bit width ${bits} is not one of ${BIT_WIDTHS.join(", ")}`, {
      hint: "4 is usual",
      details: { bits },
    });
  }
  if (!Number.isInteger(groupSize) || groupSize < MIN_GROUP_SIZE || groupSize > MAX_GROUP_SIZE) {
    throw new ArrowQuantError(
      "E_CONFIG",
      `group size ${groupSize} is not an integer from ${MIN_GROUP_SIZE} to ${MAX_GROUP_SIZE}`,
      { hint: "32, 64 and 128 are usual", details: { groupSize } },
    );
  }
  checkCodeBits("scale bits", scaleBits);
  checkCodeBits("zero-point bits", zeroPointBits);
  if ((scaleBits === null) !== (superGroupSize === null)) {
    throw new ArrowQuantError(
      "E_CONFLICT",
      `scale bits ${scaleBits ?? "none"} and super-group size ${superGroupSize ?? "none"}: both or neither`,
      { hint: "scale codes need a super-group to share a scale in", details: { scaleBits, superGroupSize } },
    );
  }
  if (superGroupSize !== null && !(superGroupSize > 0 && superGroupSize % groupSize === 0)) {
    throw new ArrowQuantError(
      "E_CONFLICT",
      `super-group size ${superGroupSize} is not a multiple of group size ${groupSize}`,
      {
        hint: `try ${Math.ceil(superGroupSize / groupSize) * groupSize}`,
        details: { groupSize, superGroupSize },
      },
    );
  }
}

function checkCodeBits(setting: string, bits: number | null): void {
  if (bits === null) return;
  if (Number.isInteger(bits) && bits >= MIN_CODE_BITS && bits <= MAX_CODE_BITS) return;
  throw new ArrowQuantError(
    "E_CONFIG",
    `${setting} ${bits} is not an integer from ${MIN_CODE_BITS} to ${MAX_CODE_BITS}`,
    { hint: "6 is usual; none stores float32", details: { [setting]: bits } },
  );
}
