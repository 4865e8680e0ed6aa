/** Help in oclif's manner, drawn from the commands' data. Pure. */
import type { Command, Flag } from "./command.js";

/** Longer lines are tiring to read however wide the terminal. */
const MAX_WIDTH = 100;
const GAP = "  ";
/** Labels longer than this get a line of their own. */
const MAX_LABEL = 34;

export interface CommandSummary {
  readonly name: string;
  readonly summary: string;
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}

function definitions(entries: readonly (readonly [label: string, text: string])[], width: number): string[] {
  const labelWidth = Math.min(MAX_LABEL, Math.max(...entries.map(([label]) => label.length)));
  const indent = GAP + " ".repeat(labelWidth) + GAP;
  return entries.flatMap(([label, text]) => {
    const lines = wrap(text, Math.max(20, width - indent.length));
    const first = GAP + label.padEnd(labelWidth) + GAP + lines[0];
    const rest = lines.slice(1).map((line) => indent + line);
    return label.length > labelWidth ? [GAP + label, ...lines.map((line) => indent + line)] : [first, ...rest];
  });
}

function flagLabel(flag: Flag): string {
  const short = flag.short === undefined ? "    " : `-${flag.short}, `;
  const value = flag.choices?.join("|") ?? flag.value;
  return `${short}--${flag.negatable ? "[no-]" : ""}${flag.name}${value === undefined ? "" : `=<${value}>`}`;
}

function flagText(flag: Flag): string {
  return !flag.repeatable ? flag.description : `${flag.description} (repeatable)`;
}

function usage(command: Command): string {
  const args = command.args.map(({ name, optional }) => (optional ? `[${name}]` : name));
  const required = command.flags.filter((flag) => flag.required).map((flag) => `-${flag.short} <${flag.value}>`);
  return ["$ arrowquant", command.name, ...args, ...required, "[flags]"].join(" ");
}

export function commandHelp(command: Command, columns: number): string {
  const width = Math.min(MAX_WIDTH, columns);
  const blocks: string[][] = [[command.summary], ["USAGE", `${GAP}${usage(command)}`]];
  if (command.args.length > 0) {
    blocks.push([
      "ARGUMENTS",
      ...definitions(
        command.args.map((arg) => [arg.name, arg.description]),
        width,
      ),
    ]);
  }
  for (const group of new Set(command.flags.map((flag) => flag.group))) {
    const entries = command.flags
      .filter((flag) => flag.group === group)
      .map((flag) => [flagLabel(flag), flagText(flag)] as const);
    blocks.push([group, ...definitions(entries, width)]);
  }
  if (command.description !== undefined) {
    const paragraphs = command.description.split("\n");
    blocks.push(["DESCRIPTION", ...paragraphs.flatMap((text) => wrap(text, width - 2).map((line) => GAP + line))]);
  }
  blocks.push([
    "EXAMPLES",
    command.examples
      .map(({ description, command: line }) => `${GAP}${description}\n\n${GAP}${GAP}$ ${line}`)
      .join("\n\n"),
  ]);
  return `${blocks.map((lines) => lines.join("\n")).join("\n\n")}\n`;
}

/** Help of the program or of a topic: what there is, not how it works. */
export function overview(
  about: { readonly title: string; readonly usage: string; readonly notes: readonly string[] },
  commands: readonly CommandSummary[],
  columns: number,
): string {
  const width = Math.min(MAX_WIDTH, columns);
  const blocks = [
    [about.title],
    ["USAGE", `${GAP}$ ${about.usage}`],
    [
      "COMMANDS",
      ...definitions(
        commands.map(({ name, summary }) => [name, summary]),
        width,
      ),
    ],
    ...(about.notes.length === 0 ? [] : [about.notes.flatMap((note) => wrap(note, width))]),
  ];
  return `${blocks.map((lines) => lines.join("\n")).join("\n\n")}\n`;
}
