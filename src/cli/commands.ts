/** The table of commands, and which of them a command line means. */
import { closest, distance } from "fastest-levenshtein";
import { ArrowQuantError, ERRORS } from "../errors.js";
import { readVersion } from "../version.js";
import type { Command } from "./command.js";
import { batch } from "./commands/batch.js";
import { calibrate } from "./commands/calibrate.js";
import { configInit, configSchema, configShow } from "./commands/config.js";
import { exportCommand } from "./commands/export.js";
import { inspect } from "./commands/inspect.js";
import { plan } from "./commands/plan.js";
import { quantize } from "./commands/quantize.js";
import { sensitivity } from "./commands/sensitivity.js";
import { validate } from "./commands/validate.js";
import { commandHelp, overview } from "./help.js";

/** Data alone: what a command needs to do its work is loaded when it does it. */
export const COMMANDS: readonly Command[] = [
  quantize,
  calibrate,
  sensitivity,
  plan,
  validate,
  batch,
  inspect,
  exportCommand,
  configShow,
  configInit,
  configSchema,
];

export type Request =
  | { readonly kind: "text"; readonly name: string; readonly text: string }
  | { readonly kind: "command"; readonly name: string; readonly command: Command; readonly line: readonly string[] };

/** A slip of the keyboard is two letters at most; beyond that a suggestion is a guess. */
const MAX_SLIP = 2;

const HELP_FLAGS = ["--help", "-h"];

function asksForHelp(line: readonly string[]): boolean {
  const end = line.indexOf("--");
  return (end < 0 ? line : line.slice(0, end)).some((arg) => HELP_FLAGS.includes(arg));
}

/** What the exit codes mean, in one line: the help is where they are looked up. */
function exitCodeNote(): string {
  return (
    `EXIT CODES: 0 done; ${ERRORS.E_INTERNAL.exitCode} unexpected; ` +
    `${ERRORS.E_USAGE.exitCode} usage or configuration; ${ERRORS.E_READ.exitCode} input; ` +
    `${ERRORS.E_QUALITY.exitCode} quality below the threshold, or missing, extra or misshapen layers; ` +
    `${ERRORS.E_JOBS.exitCode} some batch jobs failed; 130, 143 interrupted.`
  );
}

function programHelp(columns: number): string {
  return overview(
    {
      title: "Post-training quantization of diffusion and flow models",
      usage: "arrowquant COMMAND [ARGUMENTS] [FLAGS]",
      notes: ["Run arrowquant COMMAND --help for the flags of a command.", exitCodeNote()],
    },
    COMMANDS,
    columns,
  );
}

function topicHelp(topic: string, columns: number): string {
  return overview(
    { title: `Commands of the topic ${topic}`, usage: `arrowquant ${topic} COMMAND [FLAGS]`, notes: [] },
    COMMANDS.filter(({ name }) => name.startsWith(`${topic} `)),
    columns,
  );
}

function unknownCommand(given: string, known: readonly string[]): ArrowQuantError {
  const nearest = closest(given, known);
  const suggestion = distance(given, nearest) <= MAX_SLIP ? nearest : null;
  return new ArrowQuantError("E_USAGE", `"${given}" is not an arrowquant command`, {
    hint: suggestion === null ? "see arrowquant --help" : `did you mean ${suggestion}?`,
    details: { command: given, known, ...(suggestion === null ? {} : { suggestion }) },
  });
}

/**
 * What the arguments (without node and script) ask for: help, the version, or a command and its own line.
 * `help X` is the same as `X --help`.
 * @throws E_USAGE
 */
export function findCommand(args: readonly string[], columns: number): Request {
  const [first, ...rest] = args[0] === "help" ? [...args.slice(1), "--help"] : args;
  if (first === undefined || HELP_FLAGS.includes(first)) {
    return { kind: "text", name: "help", text: programHelp(columns) };
  }
  if (first === "--version" || first === "-V") {
    return { kind: "text", name: "version", text: `arrowquant ${readVersion()}\n` };
  }
  if (first.startsWith("-")) {
    throw new ArrowQuantError("E_USAGE", `"${first}" stands before a command`, {
      hint: "flags follow the command: arrowquant quantize MODEL --json",
      details: { flag: first },
    });
  }
  const topics = new Set(COMMANDS.flatMap(({ name }) => (name.includes(" ") ? [name.split(" ")[0] as string] : [])));
  const isTopic = topics.has(first);
  if (isTopic && (rest[0] === undefined || HELP_FLAGS.includes(rest[0]))) {
    return { kind: "text", name: first, text: topicHelp(first, columns) };
  }
  const name = isTopic ? `${first} ${rest[0]}` : first;
  const command = COMMANDS.find((candidate) => candidate.name === name);
  if (command === undefined) {
    const known = COMMANDS.map((candidate) => candidate.name);
    throw unknownCommand(name, isTopic ? known : [...known.filter((other) => !other.includes(" ")), ...topics]);
  }
  const line = isTopic ? rest.slice(1) : rest;
  return asksForHelp(line)
    ? { kind: "text", name, text: commandHelp(command, columns) }
    : { kind: "command", name, command, line };
}
