/** From all sources of settings to one configuration. */
import { ArrowQuantError } from "../errors.js";
import type { OriginSource, ResolvedConfig } from "./config.js";
import { type Config, type ConfigKey, flagName, ORIGIN_SOURCES, type Origin } from "./config.js";
import type { ConfigFile } from "./file.js";
import type { Place, Problem } from "./problem.js";
import type { GivenValue, ReadText } from "./yaml.js";

export interface ConfigSources {
  /** From the command line; a key that is undefined was not given. */
  readonly flags?: Readonly<Record<string, unknown>>;
  /** From the API or a batch job: weaker than flags, stronger than the environment. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** What messages call `config`, e.g. `jobs.yaml job 3`. */
  readonly configLabel?: string;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly file?: ConfigFile;
}

/**
 * One configuration of all sources, key by key the strongest that gives it: flags, object, environment, file,
 * profile, default. The profile itself is the one that flags, object or file name.
 * Throws `E_CONFIG` with every fault of every source at once, and `E_CONFLICT` where two settings that were
 * both given by hand contradict each other.
 */
export async function resolveConfig(sources: ConfigSources = {}): Promise<ResolvedConfig> {
  // zod and yaml are heavy; who only imports the program's API does not pay for them.
  const [{ CONFIG_KEYS, configSchema }, { checkSettings }, { createConfigError }, { findConflicts }] =
    await Promise.all([import("./schema.js"), import("./check.js"), import("./problem.js"), import("./conflict.js")]);
  const problems: Problem[] = [];
  const settled = new Map<OriginSource, ReadonlyMap<ConfigKey, { value: unknown; detail: string }>>();
  const settle = (source: OriginSource, read: ReadText): void => {
    const checked = checkSettings(read, source);
    // One by one: as arguments, the problems of a file of noise exhaust the stack.
    for (const problem of checked.problems) problems.push(problem);
    settled.set(source, checked.values);
  };
  settle("flag", await readObject("flag", sources.flags ?? {}, null));
  settle("object", await readObject("object", sources.config ?? {}, sources.configLabel ?? null));
  const { readEnvironment } = await import("./environment.js");
  settle("environment", readEnvironment(sources.environment ?? {}));
  if (sources.file !== undefined) {
    const { readYaml } = await import("./yaml.js");
    settle("file", readYaml(sources.file.text, sources.file.path, "file"));
  }
  const defaults = configSchema.parse({});
  const named = ORIGIN_SOURCES.map((source) => settled.get(source)?.get("profile")?.value).find(Boolean);
  const { readProfile } = await import("./profile.js");
  settle("profile", await readProfile((named as string | undefined) ?? defaults.profile));
  if (problems.length > 0) throw createConfigError(problems);

  const values: Record<string, unknown> = {};
  const origins: Record<string, Origin> = {};
  for (const key of CONFIG_KEYS) {
    const source = ORIGIN_SOURCES.find((candidate) => settled.get(candidate)?.has(key)) ?? "default";
    const setting = settled.get(source)?.get(key);
    values[key] = setting === undefined ? defaults[key] : setting.value;
    origins[key] = { source, detail: setting?.detail ?? "default" };
  }
  const resolved: ResolvedConfig = {
    values: values as Config,
    origins: origins as ResolvedConfig["origins"],
  };
  const conflicts = findConflicts(resolved);
  const [first] = conflicts;
  if (first !== undefined) {
    throw new ArrowQuantError("E_CONFLICT", conflicts.map(({ message }) => message).join("\n"), {
      hint: `drop ${first.settings.join(" or ")}`,
      details: { conflicts },
    });
  }
  return resolved;
}

/** The settings of a plain object. */
async function readObject(
  source: "flag" | "object",
  settings: Readonly<Record<string, unknown>>,
  label: string | null,
): Promise<ReadText> {
  const [{ isConfigKey, isSection }, { parseFlag }, { listLeaves }] = await Promise.all([
    import("./schema.js"),
    import("./text.js"),
    import("./nested.js"),
  ]);
  const given: GivenValue[] = [];
  for (const { key, value: raw } of listLeaves(settings, isSection)) {
    if (raw === undefined) continue;
    const value = source === "flag" && isConfigKey(key) ? parseFlag(key, raw) : raw;
    const objectName = label === null ? `config.${key}` : `${label}: ${key}`;
    const name = source === "flag" ? flagName(key, value) : objectName;
    const place: Place = { source, text: name, file: null, line: null, column: null };
    given.push({ key, value, detail: name, keyPlace: place, placeOf: () => place });
  }
  return { given, problems: [] };
}
