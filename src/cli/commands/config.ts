import { loadConfigFile } from "../../config/file.js";
import { writeConfigTemplate } from "../../config/init.js";
import { resolveConfig } from "../../config/resolve.js";
import { configJsonSchema } from "../../config/schema.js";
import { listSettings } from "../../config/show.js";
import { EMPTY_BODY } from "../../report/json.js";
import { renderText } from "../../report/text.js";
import type { Command, Flag, Invocation, Outcome } from "../command.js";
import { writeNewFile } from "../report.js";
import { CONFIG_FLAG, DISPLAY_FLAGS, ENGINE_FLAGS, FAIL_FAST_FLAG, OUTPUT_GROUP, SETTING_FLAGS } from "../settings.js";

async function show({ flags, settings }: Invocation): Promise<Outcome> {
  const path = flags["config"] as string | undefined;
  const file = path === undefined ? {} : { file: await loadConfigFile(path) };
  const config = await resolveConfig({ flags: settings, environment: process.env, ...file });
  const rows = listSettings(config);
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

export const configShow: Command = {
  name: "config show",
  description:
    "Takes the same flags as quantize and prints what they, the environment (ARROW_QUANT_BIT_WIDTH, ...), the file of " +
    "--config, the profile and the defaults come to, in this order of strength.",
  args: [],
  flags: [CONFIG_FLAG, ...SETTING_FLAGS, FAIL_FAST_FLAG, ...ENGINE_FLAGS, ...DISPLAY_FLAGS],
  examples: [
    { description: "The usual settings", command: "arrowquant config show" },
    {
      description: "What a file and a flag come to together",
      command: "arrowquant config show --config quant.yaml --bit-width 2",
    },
  ],
  run: show,
};

const INIT_OUTPUT: Flag = {
  name: "output",
  short: "o",
  value: "file",
  description: "File to write instead of stdout; an existing one only with --force",
  group: OUTPUT_GROUP,
};

async function init({ flags, settings, terminal }: Invocation): Promise<Outcome> {
  const { profile } = (await resolveConfig({ flags: settings })).values;
  const text = await writeConfigTemplate(profile);
  const output = flags["output"] as string | undefined;
  if (output === undefined || output === "-") return { body: { ...EMPTY_BODY, text }, text: () => text };
  await writeNewFile(output, text, flags["force"] === true);
  if (!terminal.json) terminal.note(`wrote ${output}`);
  return { body: { ...EMPTY_BODY, output }, text: () => "" };
}

export const configInit: Command = {
  name: "config init",
  args: [],
  flags: [
    INIT_OUTPUT,
    { name: "force", description: "Replace an existing file", group: OUTPUT_GROUP },
    ...SETTING_FLAGS.filter(({ name }) => name === "profile"),
    ...DISPLAY_FLAGS,
  ],
  examples: [
    {
      description: "Start a configuration of one's own from a profile",
      command: "arrowquant config init --profile edge -o quant.yaml",
    },
  ],
  run: init,
};

export const configSchema: Command = {
  name: "config schema",
  description: "With --json the schema stands under the key schema of the usual document.",
  args: [],
  flags: DISPLAY_FLAGS,
  examples: [
    { description: "Let an editor check configuration files", command: "arrowquant config schema > quant.schema.json" },
  ],
  run: () => {
    const schema = configJsonSchema();
    return Promise.resolve({
      body: { ...EMPTY_BODY, schema },
      text: () => `${JSON.stringify(schema, null, 2)}\n`,
    });
  },
};
