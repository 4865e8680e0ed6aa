/** The allocation whose file is as large as it may be. */
import { ArrowQuantError } from "../errors.js";
import {
  type AllocatedLayers,
  type Allocation,
  type AllocationLayer,
  allocateBits,
  findReachableRange,
} from "../plan/allocation.js";

/** An allocation with the length of its file or files. */
export interface FittedAllocation {
  readonly allocation: Allocation;
  readonly fileBytes: number;
}

/** What a file holds beside codes, scales and zero points hardly changes with them: few rounds settle it. */
const MAX_ROUNDS = 6;

/**
 * Allocates so that the output is at most `targetBytes`: what it holds beside the layers is measured, not guessed.
 * @param measure bytes of the output with these layers
 * @throws E_TARGET with the reachable range where even the smallest is larger
 */
export async function allocateFile(
  layers: readonly AllocationLayer[],
  targetBytes: number,
  gap: number,
  measure: (allocated: AllocatedLayers) => Promise<number>,
): Promise<FittedAllocation> {
  const { least, most } = findReachableRange(layers, "bytes");
  const smallest = allocateBits(layers, { kind: "bytes", value: least }, gap);
  let best: FittedAllocation = { allocation: smallest, fileBytes: await measure(smallest) };
  if (best.fileBytes > targetBytes) throw await refuseTarget(layers, best.fileBytes, most, targetBytes, gap, measure);
  let capacity = targetBytes - (best.fileBytes - smallest.bytes);
  for (let round = 0; round < MAX_ROUNDS && capacity > best.allocation.bytes; round++) {
    const allocation = allocateBits(layers, { kind: "bytes", value: capacity }, gap);
    const fileBytes = await measure(allocation);
    const isBetter = allocation.error < best.allocation.error || round === 0;
    if (fileBytes <= targetBytes && isBetter) best = { allocation, fileBytes };
    const next = targetBytes - (fileBytes - allocation.bytes);
    // What is over comes off; what is left over is tried once more where it could hold something.
    if (next === capacity || (fileBytes <= targetBytes && next < capacity)) break;
    capacity = next;
  }
  return best;
}

async function refuseTarget(
  layers: readonly AllocationLayer[],
  leastBytes: number,
  mostLayerBytes: number,
  targetBytes: number,
  gap: number,
  measure: (allocated: AllocatedLayers) => Promise<number>,
): Promise<ArrowQuantError> {
  const largest = await measure(allocateBits(layers, { kind: "bytes", value: mostLayerBytes }, gap));
  // Rounded inwards, so that what is printed can be reached.
  const [least, most] = [Math.ceil(leastBytes / 1e4) / 100, Math.floor(largest / 1e4) / 100];
  const range = `${least.toFixed(2)} MB to ${most.toFixed(2)} MB`;
  return new ArrowQuantError(
    "E_TARGET",
    `target of at most ${targetBytes / 1e6} MB is out of reach: candidates of ${layers.length} layers come to ${range}`,
    {
      hint: `choose a target from ${range}, or allow other candidates (bits, group sizes, floors and ceilings)`,
      details: { targetBytes, leastBytes, mostBytes: largest, layerCount: layers.length },
    },
  );
}
