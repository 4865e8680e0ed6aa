import { writeConfigTemplate } from "../../config/init.js";
import { resolveConfig } from "../../config/resolve.js";
import { configJsonSchema } from "../../config/schema.js";
import { listSettings } from "../../config/show.js";
import { EMPTY_BODY } from "../../report/json.js";
import { renderText } from "../../report/text.js";
import type { Invocation, Outcome } from "../command.js";
import { writeNewFile } from "../report.js";
import { resolveInvocation } from "../resolve.js";

export async function showConfig(invocation: Invocation): Promise<Outcome> {
  const rows = listSettings(await resolveInvocation(invocation));
  return {
    body: { ...EMPTY_BODY, settings: rows.map(({ key, value, source, origin }) => ({ key, value, source, origin })) },
    text: (style) =>
      renderText(
        null,
        [
          {
            kind: "table",
            columns: [{ title: "setting" }, { title: "value", elastic: true }, { title: "from" }],
            rows: rows.map(({ key, text, origin }) => [key, text, origin]),
          },
        ],
        style,
      ),
  };
}

export async function writeConfig({ flags, settings, terminal }: Invocation): Promise<Outcome> {
  const { profile } = (await resolveConfig({ flags: settings })).values;
  const text = await writeConfigTemplate(profile);
  const output = flags.output as string | undefined;
  if (output === undefined || output === "-") return { body: { ...EMPTY_BODY, text }, text: () => text };
  await writeNewFile(output, text, flags.force === true);
  if (!terminal.json) terminal.note(`wrote ${output}`);
  return { body: { ...EMPTY_BODY, output }, text: () => "" };
}

export function showSchema(): Promise<Outcome> {
  const schema = configJsonSchema();
  return Promise.resolve({
    body: { ...EMPTY_BODY, schema },
    text: () => `${JSON.stringify(schema, null, 2)}\n`,
  });
}
