import type { Command, Flag } from "../command.js";
import { CONFIG_FLAG, DISPLAY_FLAGS, ENGINE_FLAGS, FAIL_FAST_FLAG, OUTPUT_GROUP, SETTING_FLAGS } from "../settings.js";

export const configShow: Command = {
  name: "config show",
  summary: "Show every setting with its value and where it comes from",
  description:
    "Takes the same flags as quantize and prints what they, the environment (ARROW_QUANT_BIT_WIDTH, ...), the file " +
    "of --config, the profile and the defaults come to, in this order of strength.",
  args: [],
  flags: [CONFIG_FLAG, ...SETTING_FLAGS, FAIL_FAST_FLAG, ...ENGINE_FLAGS, ...DISPLAY_FLAGS],
  examples: [
    { description: "The usual settings", command: "arrowquant config show" },
    {
      description: "What a file and a flag come to together",
      command: "arrowquant config show --config quant.yaml --bit-width 2",
    },
  ],
  run: async (invocation) => (await import("../run/config.js")).showConfig(invocation),
};

const INIT_OUTPUT: Flag = {
  name: "output",
  short: "o",
  value: "file",
  description: "File to write instead of stdout; an existing one only with --force",
  group: OUTPUT_GROUP,
};

export const configInit: Command = {
  name: "config init",
  summary: "Write a commented configuration file to start from",
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
  run: async (invocation) => (await import("../run/config.js")).writeConfig(invocation),
};

export const configSchema: Command = {
  name: "config schema",
  summary: "Print the JSON Schema of configuration files, for editors",
  description: "With --json the schema stands under the key schema of the usual document.",
  args: [],
  flags: DISPLAY_FLAGS,
  examples: [
    { description: "Let an editor check configuration files", command: "arrowquant config schema > quant.schema.json" },
  ],
  run: async () => (await import("../run/config.js")).showSchema(),
};
