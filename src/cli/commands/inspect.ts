import { resolveConfig } from "../../config/resolve.js";
import { inspectPath, inspectSections } from "../../report/inspect.js";
import { inspectBody } from "../../report/json.js";
import { renderText } from "../../report/text.js";
import type { Command, Invocation, Outcome } from "../command.js";
import { DISPLAY_FLAGS, refuseDash, SETTING_FLAGS } from "../settings.js";

async function run({ args, settings }: Invocation): Promise<Outcome> {
  const path = refuseDash(args[0] as string, "PATH");
  const { variant, components } = (await resolveConfig({ flags: settings })).values;
  const inspection = await inspectPath(path, {
    ...(variant === null ? {} : { variant }),
    ...(components === null ? {} : { components }),
  });
  return {
    body: inspectBody(inspection),
    text: (style) => renderText(null, inspectSections(inspection), style),
  };
}

export const inspect: Command = {
  name: "inspect",
  description:
    "Figures of a quantized file are those measured when it was written; arrowquant validate measures them anew.",
  args: [{ name: "PATH", description: "A model file or folder, a .parquet file, or a folder of those" }],
  flags: [...SETTING_FLAGS.filter(({ name }) => name === "components" || name === "variant"), ...DISPLAY_FLAGS],
  examples: [
    { description: "What a model holds", command: "arrowquant inspect ./my-model" },
    { description: "How each layer was quantized, for a script", command: "arrowquant inspect out.parquet --json" },
  ],
  run,
};
