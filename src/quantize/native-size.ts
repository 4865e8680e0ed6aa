/** How long a native file will be, to the byte: what its writer makes of rows of zeros. */
import type { TimeAwareQuant } from "../formats/parquet/row.js";
import { NativeWriter } from "../formats/parquet/writer.js";
import type { ComponentPlan, LayerPlan } from "../plan/plan.js";
import { type QuantSpec, rowLayout, viewAs2d } from "../tensor/layout.js";
import { zeroSums } from "../tensor/metrics.js";
import type { ChunkPart, PartRanges } from "../worker/messages.js";
import { nativeRow } from "./component.js";
import type { SettledLayer } from "./layer.js";
import { type ChunkGrid, keptGrid, quantizedGrid, rowsOfChunk } from "./layer-layout.js";

/**
 * Bytes of the file of a plan. What is settled while quantizing (equalization scales, timestep groups) is counted at
 * its most.
 * @param metadata as the file will have it
 * @param timeInput the graph's input that holds the time, as files of time-aware layers name it
 */
export async function measureNativeFile(
  plan: ComponentPlan,
  metadata: ReadonlyMap<string, string>,
  timeInput: string,
): Promise<number> {
  const grids = plan.layers.map(gridOf);
  // Every chunk is a view of the same zeros: the writer counts them and looks at none.
  const zeros = new ArrayBuffer(grids.reduce((most, grid) => Math.max(most, grid.chunkBufferBytes), 0));
  let byteLength = 0;
  const sink = {
    write: async (bytes: Uint8Array) => {
      byteLength += bytes.length;
    },
  };
  const writer = await NativeWriter.open(sink, metadata);
  const release = (): void => undefined;
  for (const [index, layer] of plan.layers.entries()) {
    const grid = grids[index] as ChunkGrid;
    const settled = settleAtMost(layer, timeInput);
    for (let chunkIndex = 0; chunkIndex < grid.chunkCount; chunkIndex++) {
      const chunk = {
        chunkIndex,
        chunkCount: grid.chunkCount,
        buffer: zeros,
        parts: partsOf(layer, grid, rowsOfChunk(grid, chunkIndex)),
        crc32: 0,
        sums: layer.spec === null ? null : zeroSums(),
      };
      await writer.write(nativeRow(plan, layer, settled, chunk), release);
    }
  }
  await writer.finish();
  return byteLength;
}

function gridOf({ tensor, spec, storedDtype }: LayerPlan): ChunkGrid {
  return spec === null ? keptGrid(tensor.shape, storedDtype) : quantizedGrid(tensor.shape, spec);
}

/** Parts of a chunk of `rowCount` rows, side by side where float32 views may begin. */
function partsOf({ spec }: LayerPlan, grid: ChunkGrid, rowCount: number): PartRanges {
  if (spec === null) {
    const byteLength = grid.rows === 0 ? 0 : (grid.storedBytes / grid.rows) * rowCount;
    return { data: { byteOffset: 0, byteLength } };
  }
  return quantizedParts(spec, grid.cols, rowCount);
}

function quantizedParts(spec: QuantSpec, cols: number, rowCount: number): PartRanges {
  const layout = rowLayout(cols, spec);
  const hasZeroPoints = !spec.symmetric && spec.method !== "r2q";
  const isCoded = spec.scaleBits !== null;
  const lengths: Partial<Record<ChunkPart, number>> = {
    data: layout.codeBytes,
    scales: 4 * layout.scaleCount,
    ...(hasZeroPoints && spec.zeroPointBits === null ? { zeroPoints: 4 * layout.zeroPointCount } : {}),
    ...(isCoded ? { scaleCodes: layout.scaleCodeBytes } : {}),
    ...(hasZeroPoints && spec.zeroPointBits !== null ? { zeroPointCodes: layout.zeroPointCodeBytes } : {}),
    ...(spec.method === "r2q" ? { residualScaleCodes: layout.residualScaleCodeBytes } : {}),
  };
  return Object.fromEntries(
    Object.entries(lengths).map(([part, byteLength]) => [part, { byteOffset: 0, byteLength: byteLength * rowCount }]),
  );
}

/** What may be stored of a layer beside its codes. */
function settleAtMost(
  { tensor, spec, calibrated, spatial, activations }: LayerPlan,
  timeInput: string,
): Pick<SettledLayer, "spec" | "timeAware" | "spatial" | "activationStats"> {
  if (spec === null) return { spec, timeAware: null, spatial: null, activationStats: null };
  const { cols } = viewAs2d(tensor.shape);
  const channelCount = tensor.shape.length > 2 ? (tensor.shape[1] as number) : cols;
  return {
    spec,
    timeAware: activations === null || activations.mode === "dynamic" ? null : timeGroups(activations, timeInput),
    spatial:
      spatial === null
        ? null
        : {
            enabled: true,
            channelEqualization: true,
            activationSmoothing: 0,
            equalizationScales: new Array<number>(channelCount).fill(1),
          },
    activationStats: calibrated ? { mean: 0, std: 0, min: 0, max: 0 } : null,
  };
}

function timeGroups({ bits, groupCount }: NonNullable<LayerPlan["activations"]>, timeInput: string): TimeAwareQuant {
  const group = { timeRange: { start: 0, end: 1 }, scale: 1, zeroPoint: 0, groupSize: null };
  return {
    enabled: true,
    numTimeGroups: groupCount,
    activationBits: bits,
    timeInput,
    timeGroupParams: new Array<typeof group>(groupCount).fill(group),
  };
}
