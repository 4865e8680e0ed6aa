/** The profiles that ship with the program: YAML files in profiles/. */
import { readFile } from "node:fs/promises";
import { ArrowQuantError } from "../errors.js";
import { type ReadText, readYaml } from "./yaml.js";

/** The settings of profile `name`, from the package's own folder. */
export async function readProfile(name: string): Promise<ReadText> {
  const file = `profiles/${name}.yaml`;
  let text: string;
  try {
    text = await readFile(new URL(`../../${file}`, import.meta.url), "utf8");
  } catch (cause) {
    throw new ArrowQuantError("E_INTERNAL", `${file} is missing from the installed package`, { cause });
  }
  const { given, problems } = readYaml(text, file, "profile");
  return { given: given.map((one) => ({ ...one, detail: file })), problems };
}
