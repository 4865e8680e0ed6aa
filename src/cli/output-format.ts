/** The format of a command's output: the flag that names it, and flags that only some formats have. */
import { ArrowQuantError } from "../errors.js";
import { chooseOutputFormat, OUTPUT_FORMAT_NAMES, type OutputFormatName } from "../quantize/output-format.js";
import type { Flag } from "./command.js";
import { OUTPUT_GROUP } from "./settings.js";

export const FORMAT_FLAG: Flag = {
  name: "format",
  choices: OUTPUT_FORMAT_NAMES,
  description: "Format of the output, where its ending does not tell",
  group: OUTPUT_GROUP,
};

/** Names of a command's flags that have a meaning for some formats alone, by format. */
export type FormatFlags = Readonly<Record<OutputFormatName, readonly string[]>>;

/**
 * The format that the output's ending, `--format`, or a flag that only one format has asks for; else `fallback`.
 * @throws E_CONFLICT where two of them contradict each other
 */
export function readOutputFormat(
  flags: Readonly<Record<string, unknown>>,
  own: FormatFlags,
  fallback: OutputFormatName,
): OutputFormatName {
  const given = [...new Set(OUTPUT_FORMAT_NAMES.flatMap((format) => own[format]))]
    .filter((flag) => isGiven(flags[flag]))
    .map((flag) => ({ flag, formats: OUTPUT_FORMAT_NAMES.filter((format) => own[format].includes(flag)) }));
  const wanted = flags["format"] as OutputFormatName | undefined;
  const evident = given.find(({ formats }) => formats.length === 1)?.formats[0];
  const chosen = chooseOutputFormat(String(flags["output"] ?? ""), wanted, evident ?? fallback);
  const other = given.find(({ formats }) => !formats.includes(chosen));
  if (other === undefined) return chosen;
  throw new ArrowQuantError("E_CONFLICT", `--${other.flag} has no meaning for output of format ${chosen}`, {
    hint: `it is for ${other.formats.join(" and ")}: choose that with --format, or leave the flag out`,
    details: { flag: other.flag, format: chosen },
  });
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== false;
}
