/** What `config show` prints. */
import { type ConfigKey, describeOrigin, type OriginSource, type ResolvedConfig } from "./config.js";

export interface ConfigRow {
  readonly key: ConfigKey;
  readonly value: unknown;
  /** The value as YAML writes it on one line. */
  readonly text: string;
  readonly source: OriginSource;
  /** `flag --bit-width`, `file quant.yaml:12`, `default`. */
  readonly origin: string;
}

/** Every resolved value with where it came from, in the order of the schema. */
export function listSettings(config: ResolvedConfig): ConfigRow[] {
  return (Object.keys(config.values) as ConfigKey[]).map((key) => {
    const value = config.values[key];
    const origin = config.origins[key];
    return {
      key,
      value,
      text: typeof value === "string" ? value : JSON.stringify(value),
      source: origin.source,
      origin: describeOrigin(origin),
    };
  });
}
