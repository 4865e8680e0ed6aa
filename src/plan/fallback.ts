/** What a layer falls back to when its quality is too low. */
import type { BitWidth, MethodName, QuantSpec } from "../tensor/layout.js";

const NEXT_WIDTHS: Readonly<Record<BitWidth, BitWidth | null>> = {
  2: 4,
  3: 4,
  4: 8,
  5: 6,
  6: 8,
  8: null,
};

/** Methods that exist at some widths only, with what stands in for them at the others. */
const SUBSTITUTES: Partial<Record<MethodName, { readonly bits: readonly BitWidth[]; readonly by: MethodName }>> = {
  r2q: { bits: [2], by: "hqq" },
};

/** The method that quantizes to `bits` where `method` was asked for. */
export function methodAtWidth(method: MethodName, bits: BitWidth): MethodName {
  const substitute = SUBSTITUTES[method];
  return substitute === undefined || substitute.bits.includes(bits) ? method : substitute.by;
}

/** The spec one width up, or null where the layer is kept instead: 2 → 4 → 8 → kept, 3 → 4, 5 → 6 → 8. */
export function nextSpec(spec: QuantSpec): QuantSpec | null {
  const bits = NEXT_WIDTHS[spec.bits];
  return bits === null ? null : { ...spec, bits, method: methodAtWidth(spec.method, bits) };
}
