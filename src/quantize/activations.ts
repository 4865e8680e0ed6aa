/** Activation parameters of a layer's input, as they are stored and as held-back rows are quantized by them. */
import type { Session } from "../engine/session.js";
import type { TimeAwareQuant } from "../formats/parquet/row.js";
import type { ActivationSettings } from "../plan/plan.js";
import { findTimeGroup, type TimeGroup, type TimeRange } from "../plan/time-groups.js";
import type { ActivationRows } from "../worker/messages.js";
import type { LayerCalibration } from "./layer-calibration.js";

/** The time that a model was trained on, and how statistics divide it. */
export interface TimeAxis {
  /** The graph's input that holds the time. */
  readonly input: string;
  /** One per time bin of the statistics. */
  readonly bins: readonly TimeRange[];
  readonly planned: PlannedActivations;
}

export interface ActivationPlan {
  /** null where ranges are found while running (mode `dynamic`). */
  readonly timeAware: TimeAwareQuant | null;
  /** Steps between neighbouring groups that pass the threshold: the time of the boundary and the score. */
  readonly roughSteps: readonly { readonly time: number; readonly score: number }[];
  readonly smoothnessThreshold: number;
}

/** Plans of activations, by grouping and layer input: those of inputs as they are serve every layer of the input. */
export type PlannedActivations = Map<string, Promise<ActivationPlan>>;

/**
 * @param scales what each channel of the input is divided by before it is quantized; null: nothing
 */
export function planActivations(
  calibration: LayerCalibration,
  settings: ActivationSettings,
  scales: Float32Array | null,
  time: TimeAxis,
  session: Session,
  signal: AbortSignal,
): Promise<ActivationPlan> {
  const key = `${settings.groups} ${calibration.value}`;
  const known = scales === null ? time.planned.get(key) : undefined;
  if (known !== undefined) return known;
  const planned = planOnThread(calibration, settings, scales, time, session, signal);
  if (scales === null) {
    planned.catch(() => undefined);
    time.planned.set(key, planned);
  }
  return planned;
}

async function planOnThread(
  { statistics }: LayerCalibration,
  settings: ActivationSettings,
  smoothing: Float32Array | null,
  { input, bins }: TimeAxis,
  session: Session,
  signal: AbortSignal,
): Promise<ActivationPlan> {
  const { bits, mode, smoothnessThreshold } = settings;
  if (mode === "dynamic") return { timeAware: null, roughSteps: [], smoothnessThreshold };
  const { channels, min, max, mean, meansq, count, histogram, histogramExponent } = statistics;
  const inputs = { channels, min, max, mean, meansq, count, histogram, histogramExponent };
  const task = { kind: "time-groups", statistics: inputs, smoothing, bins, settings } as const;
  const { groups, smoothness, roughSteps } = await session.run(task, [], signal);
  return {
    timeAware: {
      enabled: true,
      numTimeGroups: groups.length,
      activationBits: bits,
      timeInput: input,
      timeGroupParams: groups,
    },
    roughSteps: roughSteps.map((index) => ({
      time: (groups[index + 1] as TimeGroup).timeRange.start,
      score: smoothness[index] as number,
    })),
    smoothnessThreshold,
  };
}

/** Parameters of each held-back row, by the time at which it passed; null where none are stored. */
export function activationRows({ statistics }: LayerCalibration, { timeAware }: ActivationPlan): ActivationRows | null {
  if (timeAware === null || statistics.heldBackTime === null) return null;
  const groups = timeAware.timeGroupParams as readonly TimeGroup[];
  const indices = Array.from(statistics.heldBackTime, (time) => findTimeGroup(groups, time));
  return {
    bits: timeAware.activationBits,
    scales: Float32Array.from(indices, (index) => (groups[index] as TimeGroup).scale),
    zeroPoints: Float32Array.from(indices, (index) => (groups[index] as TimeGroup).zeroPoint),
  };
}

/** What of a layer's parameters is worth a warning. */
export function describeActivations(layerName: string, plan: ActivationPlan): string[] {
  const [worst] = [...plan.roughSteps].sort((a, b) => b.score - a.score);
  if (worst === undefined) return [];
  const count = plan.roughSteps.length;
  return [
    `"${layerName}": activation scales step by more than ${plan.smoothnessThreshold} (log) between ` +
      `${count} of its timestep groups, most at time ${worst.time} (${worst.score.toFixed(2)})`,
  ];
}
