import { resolveConfig } from "../../config/resolve.js";
import { inspectPath, inspectSections } from "../../report/inspect.js";
import { inspectBody } from "../../report/json.js";
import { renderText } from "../../report/text.js";
import type { Invocation, Outcome } from "../command.js";
import { refuseDash } from "../paths.js";

export async function runInspect({ args, settings }: Invocation): Promise<Outcome> {
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
