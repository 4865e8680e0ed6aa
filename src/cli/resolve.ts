/** Settings of a command line together with those around it. */
import type { ResolvedConfig } from "../config/config.js";
import { loadConfigFile } from "../config/file.js";
import { type ConfigSources, resolveConfig } from "../config/resolve.js";
import type { Invocation } from "./command.js";

/** Flags, environment and the file of --config. @throws E_CONFIG */
export async function gatherSources({
  flags,
  settings,
}: Pick<Invocation, "flags" | "settings">): Promise<ConfigSources> {
  const path = flags.config as string | undefined;
  const file = path === undefined ? {} : { file: await loadConfigFile(path) };
  return { flags: settings, environment: process.env, ...file };
}

/** @throws E_CONFIG, E_CONFLICT */
export async function resolveInvocation(invocation: Pick<Invocation, "flags" | "settings">): Promise<ResolvedConfig> {
  return resolveConfig(await gatherSources(invocation));
}
