/** Plans the time groups of a layer's input. */
import { inputDistributions } from "../plan/input-distributions.js";
import { planTimeGroups } from "../plan/time-groups.js";
import type { TimeGroupsReply, TimeGroupsTask } from "./messages.js";

export function groupTimes({ statistics, smoothing, bins, settings }: TimeGroupsTask): TimeGroupsReply {
  const { groups, smoothness, roughSteps } = planTimeGroups(inputDistributions(statistics, smoothing), bins, settings);
  return { groups, smoothness, roughSteps };
}
