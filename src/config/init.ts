/** What `config init` writes. */
import { describeAllowed } from "./problem.js";
import { readProfile } from "./profile.js";
import { CONFIG_KEYS, configJsonSchema, type PROFILE_NAMES } from "./schema.js";

export type ProfileName = (typeof PROFILE_NAMES)[number];

const LINE_LENGTH = 100;

/**
 * A configuration file that names `profile` and holds every other setting as a comment with what it means,
 * what it takes and its value in that profile: only what is uncommented counts as set by hand.
 */
export async function writeConfigTemplate(profile: ProfileName = "local"): Promise<string> {
  const { given } = await readProfile(profile);
  const profileValues = new Map(given.map(({ key, value }) => [key, value]));
  const properties = configJsonSchema().properties ?? {};
  const lines = [
    "# arrowquant configuration. A setting counts once its line is uncommented;",
    "# flags and ARROW_QUANT_… variables win over this file, this file over the profile.",
    "",
  ];
  for (const key of CONFIG_KEYS) {
    const { description = "", default: standard } = properties[key] ?? {};
    const value = key === "profile" ? profile : (profileValues.get(key) ?? standard);
    lines.push(...wrapComment(`${description} Takes ${describeAllowed(key)}.`));
    lines.push(`${key === "profile" ? "" : "#"}${key}: ${JSON.stringify(value)}`, "");
  }
  return lines.join("\n");
}

/** `text` as comment lines; `# ` with a space, so that settings (`#key:`) can be told from it. */
function wrapComment(text: string): string[] {
  const lines: string[] = [];
  let line = "#";
  for (const word of text.split(" ")) {
    if (line.length + 1 + word.length > LINE_LENGTH) {
      lines.push(line);
      line = "#";
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}
