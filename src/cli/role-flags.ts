/** The flags that say which input of a graph is what, where that is not evident. */
import type { RoleNames } from "../graph/roles.js";
import type { Flag } from "./command.js";

const ROLES: readonly (readonly [role: keyof RoleNames, flag: string, means: string])[] = [
  ["sample", "sample-input", "the sample to denoise"],
  ["time", "time-input", "the timestep or sigma"],
  ["classLabels", "class-input", "the class labels"],
  ["encoderStates", "encoder-input", "the encoder states"],
  ["prediction", "prediction-output", "the prediction"],
];

export const ROLE_FLAGS: readonly Flag[] = ROLES.map(([, name, means]) => ({
  name,
  value: "name",
  description: `Name of ${means} in the graph, where it is not evident`,
  group: "GRAPH FLAGS",
}));

export function readRoles(flags: Readonly<Record<string, unknown>>): RoleNames {
  const given = ROLES.filter(([, flag]) => flags[flag] !== undefined);
  return Object.fromEntries(given.map(([role, flag]) => [role, flags[flag] as string]));
}
