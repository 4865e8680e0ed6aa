/** In which form each tensor of a native file is exported: plain weights, or packed codes with their scales. */
import { ArrowQuantError } from "../errors.js";
import { type PackedLayer, type PackedPart, packedTensors } from "../formats/compressed-tensors.js";
import { quoteName } from "../formats/json.js";
import type { NativeFile, NativeRowHeader } from "../formats/parquet/reader.js";
import type { NativeRow } from "../formats/parquet/row.js";
import type { OutputTensor } from "../formats/safetensors/writer.js";
import { type Dtype, isFloat } from "../tensor/dtype.js";
import type { DequantizedLayer, ExportDtype } from "./export-job.js";
import { planPacking } from "./export-packing.js";
import { isKept } from "./stored-rows.js";

export type TensorForm =
  | { readonly kind: "plain"; readonly tensor: OutputTensor }
  | {
      readonly kind: "packed";
      readonly layer: PackedLayer;
      readonly scaleDtype: ExportDtype;
      readonly parts: ReadonlyMap<PackedPart, OutputTensor>;
    };

export interface ComponentForms {
  readonly native: NativeFile;
  /** By tensor name, in the order of the file. */
  readonly forms: ReadonlyMap<string, TensorForm>;
  /** Source shapes by tensor name. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  readonly dequantized: readonly DequantizedLayer[];
}

/**
 * Decides from the file's headers.
 * @throws errors of reading; with `packed` what `planPacking` throws
 */
export async function planForms(
  native: NativeFile,
  { dtype, packed }: { readonly dtype: ExportDtype; readonly packed: boolean },
): Promise<ComponentForms> {
  const headers: NativeRowHeader[] = [];
  for await (const header of native.rowHeaders()) if (header.chunkIndex === 0) headers.push(header);
  const packings = packed ? await planPacking(native, headers) : null;
  const forms = new Map<string, TensorForm>();
  const dequantized: DequantizedLayer[] = [];
  for (const header of headers) {
    const { layerName: name, shape } = header;
    const packing = packings?.get(name);
    if (packing?.kind === "packed") {
      const { layer } = packing;
      forms.set(name, { kind: "packed", layer, scaleDtype: dtype, parts: packedTensors(layer, dtype) });
    } else {
      if (packing?.kind === "dequantized")
        dequantized.push({ component: native.component, name, reason: packing.reason });
      forms.set(name, { kind: "plain", tensor: { name, dtype: exportedDtype(header, dtype), shape } });
    }
  }
  assertUniqueNames(forms);
  return { native, forms, shapes: new Map(headers.map(({ layerName, shape }) => [layerName, shape])), dequantized };
}

/** A source may hold, say, a tensor `X.weight_scale` of its own. */
function assertUniqueNames(forms: ReadonlyMap<string, TensorForm>): void {
  const names = new Set<string>();
  for (const form of forms.values()) {
    for (const { name } of tensorsOf(form)) {
      if (names.has(name)) {
        throw new ArrowQuantError("E_DUPLICATE", `the packed file would hold ${quoteName(name)} twice`, {
          hint: "leave --packed out",
          details: { tensor: name },
        });
      }
      names.add(name);
    }
  }
}

export function tensorsOf(form: TensorForm): readonly OutputTensor[] {
  return form.kind === "plain" ? [form.tensor] : [...form.parts.values()];
}

function exportedDtype(row: Pick<NativeRow, "quantType" | "storedDtype" | "dtype">, dtype: ExportDtype): Dtype {
  const storedDtype = row.storedDtype ?? row.dtype;
  return isKept(row) && !isFloat(storedDtype) ? storedDtype : dtype;
}
