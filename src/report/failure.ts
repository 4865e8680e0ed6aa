/** A failure as sections, for reports that are written although the work failed. Pure. */
import type { ArrowQuantError } from "../errors.js";
import type { Section } from "./sections.js";

export function failureSections(error: ArrowQuantError): Section[] {
  return [
    {
      kind: "facts",
      title: "Failed",
      facts: [
        ["code", error.code],
        ["message", error.message],
        ...(error.hint === undefined ? [] : ([["hint", error.hint]] as [string, string][])),
      ],
    },
  ];
}
