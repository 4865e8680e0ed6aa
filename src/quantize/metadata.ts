/** Key/value metadata of a native file, keys in the order FORMAT.md gives. */
import type { ResolvedConfig } from "../config/config.js";
import { configThatChangesTensors } from "../config/record.js";
import type { ComponentPlan } from "../plan/plan.js";
import type { Component } from "../tensor/info.js";
import { readVersion } from "../version.js";

export const FORMAT_VERSION = "2.1";

export function nativeMetadata(
  component: Component,
  config: ResolvedConfig,
  plan: ComponentPlan,
  fingerprint: string,
): ReadonlyMap<string, string> {
  const files = component.files.map(({ name, byteLength }) => ({ name, size: byteLength }));
  const metadata = new Map([
    ["arrowquant.format", FORMAT_VERSION],
    ["arrowquant.version", readVersion()],
    ["arrowquant.config", configThatChangesTensors(config, plan)],
    ["arrowquant.source", JSON.stringify({ files, fingerprint })],
  ]);
  if (component.configText !== null) metadata.set("arrowquant.component_config", component.configText);
  return metadata;
}
