/** What it takes to quantize a layer: memory, its share of the session's budget, and what calibration knows of it. */
import type { Statistics } from "../calibration/statistics.js";
import type { Session } from "../engine/session.js";
import type { ComponentPlan, LayerPlan } from "../plan/plan.js";
import type { PlannedActivations } from "./activations.js";
import { Factors } from "./factors.js";
import { layerCalibration } from "./layer-calibration.js";
import { type LayerMemory, layerMemory } from "./layer-layout.js";
import { hasChoice, type LayerKnowledge } from "./layer-search.js";

/** A layer's buffers may take this share of the budget before it is spilled or streamed instead of held. */
const MAX_LAYER_SHARE = 1 / 4;

/** Slabs are not made smaller than this to fit the cap; below, system calls cost more than the work. */
const MIN_SLAB_BYTES = 64 * 1024;

/**
 * The layer's memory with slabs small enough for a worker's arena.
 * @throws E_MEMORY with the cap that would do, where even one row at a time does not fit
 */
export function fitLayer(session: Session, layer: LayerPlan): LayerMemory {
  let memory = layerMemory(layer, session.slabBytes);
  for (let slabBytes = session.slabBytes / 2; memory.arenaBytes > session.arenaBytes; slabBytes /= 2) {
    if (slabBytes < MIN_SLAB_BYTES) break;
    memory = layerMemory(layer, slabBytes);
  }
  const arenaLack = Math.max(0, memory.arenaBytes - session.arenaBytes);
  const bufferLack = Math.max(0, memory.chunkBufferBytes - session.budget.capacity);
  if (arenaLack + bufferLack === 0) return memory;
  throw session.memoryError(`"${layer.tensor.name}"`, arenaLack, bufferLack);
}

/** What a layer is to hold of the session's budget while its chunks are under way, for how many attempts at once. */
export function shareOfBudget(
  session: Session,
  layer: LayerPlan,
  { chunkBufferBytes, plannedBufferBytes }: LayerMemory,
): { readonly heldAttempts: number; readonly reservedBytes: number } {
  const share = Math.floor(session.budget.capacity * MAX_LAYER_SHARE);
  // Of two attempts, the better is held while the next is made.
  const heldAttempts = hasChoice(layer) ? 2 : 1;
  return {
    heldAttempts,
    reservedBytes: Math.max(chunkBufferBytes, Math.min(heldAttempts * plannedBufferBytes, share)),
  };
}

interface FactorsInput {
  readonly session: Session;
  readonly signal: AbortSignal;
  readonly plan: ComponentPlan;
  /** null: there are none. */
  readonly statistics: Statistics | null;
}

/** Where factors of Hessians are kept, for layers that statistics know; null: there are no statistics. */
export function openFactors(
  { session, signal, plan, statistics }: FactorsInput,
  newPath: () => string,
): Factors | null {
  if (statistics === null || plan.calibration === null) return null;
  const { layers } = statistics.info;
  const values = plan.layers.map(({ tensor }) => layers[tensor.name]).filter((value) => value !== undefined);
  return new Factors(session, signal, plan.calibration.gptq, newPath, values);
}

/** What calibration knows of a layer; null: nothing. */
export async function readKnowledge(
  statistics: Statistics | null,
  layer: LayerPlan,
  factors: Factors | null,
  planned: PlannedActivations,
): Promise<LayerKnowledge | null> {
  if (statistics === null || factors === null || !layer.calibrated) return null;
  const found = await statistics.read(layer.tensor.name);
  if (found === null) return null;
  const { input, bins } = statistics.info.time;
  return { calibration: layerCalibration(found), factors, time: { input: input ?? "", bins, planned } };
}
