/** An error as a person reads it: `E_CODE: message`, a hint, and the stack only where it is asked for. */
import type { ArrowQuantError } from "../errors.js";
import { printable } from "../report/printable.js";
import type { Terminal } from "./terminal.js";

function lines(text: string): string[] {
  return text.split("\n").map(printable);
}

export function complainAbout(error: ArrowQuantError, terminal: Terminal): void {
  const code = terminal.errorColor ? `\u001b[31m${error.code}\u001b[39m` : error.code;
  const [first = "", ...rest] = lines(error.message);
  terminal.complain(`${code}: ${first}`);
  for (const line of rest) terminal.complain(`  ${line}`);
  const hint = error.hint ?? (error.code === "E_INTERNAL" ? "run it again with --verbose to see where" : undefined);
  if (hint !== undefined) {
    const [firstHint = "", ...restHints] = lines(hint);
    terminal.complain(`  hint: ${firstHint}`);
    for (const line of restHints) terminal.complain(`        ${line}`);
  }
  if (!terminal.verbose) return;
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    for (const line of lines(cause.stack ?? String(cause))) terminal.complain(`  ${line}`);
  }
}
