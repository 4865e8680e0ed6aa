/** What a command is: data that help is drawn from and flags are parsed by, and a function that does the work. */
import type { ArrowQuantError } from "../errors.js";
import type { DocumentBody } from "../report/json.js";
import type { Section } from "../report/sections.js";
import type { TextStyle } from "../report/text.js";
import type { Terminal } from "./terminal.js";

interface Argument {
  /** In capitals; required unless `optional`. */
  readonly name: string;
  readonly description: string;
  readonly optional?: true;
}

export interface Flag {
  /** Long name without dashes. */
  readonly name: string;
  readonly short?: string;
  /** What its value is called in the help; a flag without one is on or off. */
  readonly value?: string;
  readonly required?: true;
  /** Name of a flag that makes a required one unnecessary. */
  readonly unless?: string;
  /** Also understood as `--no-NAME`. */
  readonly negatable?: true;
  readonly description: string;
  /** Heading in the help. */
  readonly group: string;
  /** Name of a flag that may not be given as well. */
  readonly contradicts?: string;
  /** Allowed values, checked and shown. */
  readonly choices?: readonly string[];
  /** May be given several times; its value is then the list of what was given. */
  readonly repeatable?: true;
  /** The configuration key that the flag sets. */
  readonly setting?: string;
  /** What the setting becomes where the flag takes no value; default true. */
  readonly sets?: boolean;
  /** Turns the given text (all texts of a repeatable flag) into a value; throws E_USAGE. */
  readonly parse?: (given: string | readonly string[]) => unknown;
}

interface Example {
  readonly description: string;
  readonly command: string;
}

/** A parsed command line. */
export interface Invocation {
  /** By position; an optional one left out is undefined. */
  readonly args: readonly (string | undefined)[];
  /** Given flags by their long name without dashes, negated ones as `false`. */
  readonly flags: Readonly<Record<string, unknown>>;
  /** Given flags that are settings, by configuration key: what precedence is decided with. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly terminal: Terminal;
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
}

/** What a command has to say in the end; the edge decides which form of it goes where. */
export interface Outcome {
  readonly body: DocumentBody;
  /** For stdout. */
  readonly text: (style: TextStyle) => Promise<string> | string;
  /** For `--report FILE.md` and `FILE.html`, of commands that have that flag. */
  readonly report?: { readonly title: string; readonly sections: readonly Section[] };
  /** The work was done and the answer is bad: quality, mismatches, failed jobs. */
  readonly failure?: ArrowQuantError;
  /** Warnings and notes for stderr, below what was said while the work went on. */
  readonly notes?: readonly string[];
}

export interface Command {
  /** With its topic: `quantize`, `config show`. */
  readonly name: string;
  /** One line, for the list of commands and the head of the help. */
  readonly summary: string;
  /** Paragraphs of the help, one a line. */
  readonly description?: string;
  readonly args: readonly Argument[];
  readonly flags: readonly Flag[];
  readonly examples: readonly Example[];
  readonly run: (invocation: Invocation) => Promise<Outcome>;
}
