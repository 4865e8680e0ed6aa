/** Changes to the text of a config.json that leave everything else in it as it stands, numbers to the digit. */
import { JsonScanner } from "./json.js";

/** The top-level members of an object, each with its text. Throws as `parseJsonObject` does. */
function readMembers(text: string, source: string): Map<string, string> {
  const bytes = Buffer.from(text, "utf8");
  const scanner = new JsonScanner(bytes, source, { allowNonFinite: true });
  const members = new Map<string, string>();
  scanner.readObject((key, keyOffset) => {
    if (members.has(key)) scanner.fail("E_DUPLICATE", `key ${JSON.stringify(key)} stands twice`, keyOffset);
    scanner.skipValue();
    members.set(key, bytes.toString("utf8", keyOffset, scanner.offset));
  });
  scanner.skipWhitespace();
  if (scanner.offset < bytes.length) scanner.fail("E_JSON", "text goes on after the object");
  return members;
}

/**
 * Sets top-level members, or removes those given as undefined; a text without any change is returned as it is.
 * @param text the text of an object, or null for an empty one
 */
export function editConfigText(text: string | null, changes: Readonly<Record<string, unknown>>): string {
  const members = readMembers(text ?? "{}", "config.json");
  const before = members.size;
  let isChanged = text === null;
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) {
      members.delete(key);
    } else {
      const member = `${JSON.stringify(key)}: ${JSON.stringify(value, null, 2).replaceAll("\n", "\n  ")}`;
      members.set(key, member);
      isChanged = true;
    }
  }
  if (!isChanged && members.size === before) return text as string;
  return members.size === 0 ? "{}\n" : `{\n  ${[...members.values()].join(",\n  ")}\n}\n`;
}
