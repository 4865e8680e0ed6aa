/** Arguments against a command's flags, by commander; every complaint becomes an error of ours. */
import { CommanderError, Option, Command as Parser } from "commander";
import { ArrowQuantError } from "../errors.js";
import type { Command, Flag } from "./command.js";

export interface ParsedLine {
  readonly args: readonly (string | undefined)[];
  readonly flags: Readonly<Record<string, unknown>>;
  readonly settings: Readonly<Record<string, unknown>>;
}

function takesValue(flag: Flag): boolean {
  return flag.value !== undefined || flag.choices !== undefined;
}

function optionsOf(flag: Flag): Option[] {
  const short = flag.short === undefined ? "" : `-${flag.short}, `;
  const option = new Option(`${short}--${flag.name}${takesValue(flag) ? " <value>" : ""}`);
  if (flag.choices !== undefined) option.choices(flag.choices);
  if (flag.repeatable) {
    option.argParser((text: string, gathered: string[] | undefined) => [...(gathered ?? []), text]);
  }
  return flag.negatable ? [option, new Option(`--no-${flag.name}`)] : [option];
}

function usageError(error: CommanderError, command: Command): ArrowQuantError {
  const [first = "", ...rest] = error.message.replace(/^error: /, "").split("\n");
  const suggestion = /\(Did you mean (?:one of )?(.+)\?\)/.exec(rest.join(" "))?.[1];
  return new ArrowQuantError("E_USAGE", first, {
    hint:
      suggestion === undefined
        ? `see arrowquant ${command.name} --help`
        : `did you mean ${suggestion}? See arrowquant ${command.name} --help`,
    details: { command: command.name, ...(suggestion === undefined ? {} : { suggestion }) },
  });
}

/** `-o --json` forgot the output: it does not name a file `--json`. */
function refuseFlagAsValue(command: Command, flag: Flag, value: unknown): void {
  const names = command.flags.flatMap(({ name, short }) => [
    `--${name}`,
    ...(short === undefined ? [] : [`-${short}`]),
  ]);
  const taken = [value].flat().find((text) => names.includes(String(text)));
  if (taken === undefined) return;
  throw new ArrowQuantError("E_USAGE", `--${flag.name} needs a value, ${taken} is a flag`, {
    hint: `see arrowquant ${command.name} --help`,
    details: { command: command.name, flag: flag.name },
  });
}

function conflict(one: string, other: string): ArrowQuantError {
  return new ArrowQuantError("E_CONFLICT", `--${one} and --${other} contradict each other`, {
    hint: "give one of them",
    details: { flags: [one, other] },
  });
}

/** Two flags that set the same setting to different values: neither may win in silence. */
function gatherSettings(command: Command, given: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const settings: Record<string, unknown> = {};
  const setBy: Record<string, string> = {};
  for (const flag of command.flags) {
    if (flag.setting === undefined || !Object.hasOwn(given, flag.name)) continue;
    const value = flag.sets === undefined ? given[flag.name] : flag.sets;
    const other = setBy[flag.setting];
    if (other !== undefined) {
      throw conflict(other, flag.name);
    }
    setBy[flag.setting] = flag.name;
    settings[flag.setting] = value;
  }
  return settings;
}

/** @throws E_USAGE, E_CONFLICT */
export function parseLine(command: Command, line: readonly string[]): ParsedLine {
  const parser = new Parser(command.name)
    .exitOverride()
    .helpOption(false)
    .configureOutput({ writeErr: () => {}, outputError: () => {} });
  for (const { name, optional } of command.args) parser.argument(optional ? `[${name}]` : `<${name}>`);
  const attributes = new Map<Flag, string>();
  for (const flag of command.flags) {
    const options = optionsOf(flag);
    for (const option of options) parser.addOption(option);
    attributes.set(flag, (options[0] as Option).attributeName());
  }
  try {
    parser.parse([...line], { from: "user" });
  } catch (thrown) {
    throw thrown instanceof CommanderError ? usageError(thrown, command) : thrown;
  }
  const options = parser.opts<Record<string, unknown>>();
  const flags: Record<string, unknown> = {};
  for (const [flag, attribute] of attributes) {
    // A flag that can be negated has a default of true; only what was given counts.
    if (parser.getOptionValueSource(attribute) !== "cli") continue;
    const value = options[attribute];
    refuseFlagAsValue(command, flag, value);
    flags[flag.name] =
      flag.parse !== undefined && typeof value !== "boolean" ? flag.parse(value as string | string[]) : value;
  }
  for (const { name, contradicts } of command.flags) {
    if (contradicts !== undefined && flags[name] !== undefined && flags[contradicts] !== undefined) {
      throw conflict(contradicts, name);
    }
  }
  for (const flag of command.flags) {
    const needed = flag.required && (flag.unless === undefined || flags[flag.unless] === undefined);
    if (needed && flags[flag.name] === undefined) {
      throw new ArrowQuantError("E_USAGE", `missing flag --${flag.name}`, {
        hint: `see arrowquant ${command.name} --help`,
        details: { command: command.name, flag: flag.name },
      });
    }
  }
  return { args: parser.args, flags, settings: gatherSettings(command, flags) };
}
