import type { Command } from "../command.js";
import { DISPLAY_FLAGS, SETTING_FLAGS } from "../settings.js";

export const inspect: Command = {
  name: "inspect",
  summary: "List the tensors of a model or a quantized file",
  description:
    "Figures of a quantized file are those measured when it was written; arrowquant validate measures them anew.",
  args: [{ name: "PATH", description: "A model file or folder, a .parquet file, or a folder of those" }],
  flags: [...SETTING_FLAGS.filter(({ name }) => name === "components" || name === "variant"), ...DISPLAY_FLAGS],
  examples: [
    { description: "What a model holds", command: "arrowquant inspect ./my-model" },
    { description: "How each layer was quantized, for a script", command: "arrowquant inspect out.parquet --json" },
  ],
  run: async (invocation) => (await import("../run/inspect.js")).runInspect(invocation),
};
