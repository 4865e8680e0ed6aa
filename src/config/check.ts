/** Given values against the schema. */
import type { z } from "zod";
import type { ConfigKey, OriginSource } from "./config.js";
import { createProblem, describeAllowed, describeUnknownKey, type Problem, showValue } from "./problem.js";
import { CONFIG_KEYS, configSchema, isConfigKey, isSection } from "./schema.js";
import type { GivenValue, ReadText } from "./yaml.js";

export interface CheckedSettings {
  readonly values: ReadonlyMap<ConfigKey, { readonly value: unknown; readonly detail: string }>;
  readonly problems: readonly Problem[];
}

/** The values of one source as the schema reads them, and every fault of it. */
export function checkSettings(read: ReadText, source: OriginSource): CheckedSettings {
  const problems: Problem[] = [...read.problems];
  const values = new Map<ConfigKey, { value: unknown; detail: string }>();
  for (const setting of read.given) {
    const { key } = setting;
    if (isSection(key)) {
      const allowed = `a mapping of ${listBelow(key)}`;
      const sentence = `${showValue(setting.value)} is not allowed: expected ${allowed}`;
      const subject = setting.keyPlace.file === null ? "" : `${key}: `;
      problems.push(createProblem(setting.keyPlace, subject + sentence, { key, value: setting.value, allowed }));
      continue;
    }
    if (!isConfigKey(key)) {
      const { sentence, allowed } = describeUnknownKey(key);
      problems.push(createProblem(setting.keyPlace, sentence, { key, value: setting.value, allowed }));
      continue;
    }
    if (source === "profile" && key === "profile") {
      problems.push(createProblem(setting.keyPlace, "a profile cannot name a profile", { key }));
      continue;
    }
    if (values.has(key)) {
      problems.push(createProblem(setting.keyPlace, `${key} is given twice, with dots and as a mapping`, { key }));
      continue;
    }
    const result = configSchema.shape[key].safeParse(setting.value);
    if (result.success) values.set(key, { value: result.data, detail: setting.detail });
    else for (const issue of result.error.issues) problems.push(describeIssue(setting, key, issue));
  }
  return { values, problems };
}

/** The keys of the mapping that `section` is, in words. */
function listBelow(section: string): string {
  const below = CONFIG_KEYS.filter((key) => key.startsWith(`${section}.`));
  return [...new Set(below.map((key) => key.slice(section.length + 1).split(".")[0]))].join(" and ");
}

function describeIssue(setting: GivenValue, key: ConfigKey, issue: z.core.$ZodIssue): Problem {
  const place = setting.placeOf(issue.path);
  const value = issue.path.reduce<unknown>(
    (part, step) => (part as Record<PropertyKey, unknown> | undefined)?.[step],
    setting.value,
  );
  const allowed = describeAllowed(key, issue.path);
  // A flag or a variable is named by its place; in a file the place is a line, so the key is said.
  const steps = issue.path.map((step) => `[${typeof step === "number" ? step : showValue(String(step))}]`);
  const subject = (place.file === null ? "" : key) + steps.join("");
  const prefix = subject === "" ? "" : `${subject}: `;
  if (issue.code === "invalid_key") {
    const pattern = String(issue.path.at(-1));
    const sentence = `${key}: the pattern ${showValue(pattern)} is ${
      /^\d+$/.test(pattern)
        ? `a bare number, whose place in the order is lost: write (${pattern})`
        : "empty or too long"
    }`;
    return createProblem(place, sentence, { key, value: pattern });
  }
  const sentence = `${prefix}${showValue(value)} is not allowed: expected ${allowed}`;
  return createProblem(place, sentence, { key, value, allowed });
}
