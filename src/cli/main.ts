/**
 * The one edge of the program: what is printed where, and with which code the process ends.
 *
 * Commands return what they have to say (`Outcome`) or throw. With --json there is exactly one document on
 * stdout, whatever happens.
 */
import { type ArrowQuantError, toArrowQuantError } from "../errors.js";
import { failureSections } from "../report/failure.js";
import { renderHtml } from "../report/html.js";
import { EMPTY_BODY, type JsonDocument } from "../report/json.js";
import { renderMarkdown } from "../report/markdown.js";
import { readVersion } from "../version.js";
import type { Outcome } from "./command.js";
import { findCommand } from "./commands.js";
import { complainAbout } from "./complaint.js";
import { reportEnding, writeReport } from "./report.js";
import { watchSignals } from "./signals.js";
import { readManner, Terminal } from "./terminal.js";

/** @returns the exit code, once everything is written */
export async function main(argv: readonly string[]): Promise<number> {
  const args = argv.slice(2);
  const terminal = new Terminal(readManner(args));
  const signals = watchSignals();
  let name = "arrowquant";
  let outcome: Outcome | null = null;
  let error: ArrowQuantError | null = null;
  let reportPath: string | null = null;
  try {
    const request = findCommand(args, terminal.style.width);
    name = request.name;
    if (request.kind === "text") {
      terminal.print(request.text);
      return await finish(terminal, null, null);
    }
    const { parseLine } = await import("./parse.js");
    const parsed = parseLine(request.command, request.line);
    reportPath = (parsed.flags.report as string | undefined) ?? null;
    outcome = await request.command.run({ ...parsed, terminal, signal: signals.signal });
    error = outcome.failure ?? null;
  } catch (thrown) {
    // Whatever a job threw after it was told to stop, it stopped because it was told to.
    error = toArrowQuantError(signals.signal.aborted ? signals.signal.reason : thrown);
  } finally {
    signals.stop();
  }

  const document = (): JsonDocument => ({
    ok: error === null,
    command: name,
    version: readVersion(),
    ...(outcome?.body ?? EMPTY_BODY),
    error: error?.toJSON() ?? null,
  });
  if (reportPath !== null) {
    try {
      await writeReport(reportPath, reportText(reportPath, name, document(), outcome, error));
    } catch (thrown) {
      error ??= toArrowQuantError(thrown);
    }
  }
  if (terminal.json) terminal.print(`${JSON.stringify(document(), null, 2)}\n`);
  else if (outcome !== null) terminal.print(await outcome.text(terminal.style));
  for (const note of outcome?.notes ?? []) terminal.note(note);
  if (error !== null) complainAbout(error, terminal);
  return await finish(terminal, error, signals.exitCode());
}

function reportText(
  path: string,
  command: string,
  document: JsonDocument,
  outcome: Outcome | null,
  error: ArrowQuantError | null,
): string {
  if (reportEnding(path) === ".json") return `${JSON.stringify(document, null, 2)}\n`;
  const failure = error === null ? [] : failureSections(error);
  const render = reportEnding(path) === ".html" ? renderHtml : renderMarkdown;
  return render(outcome?.report?.title ?? `arrowquant ${command}`, [...failure, ...(outcome?.report?.sections ?? [])]);
}

/** Waits until all is written; results that could not be are a failure of their own. */
async function finish(
  terminal: Terminal,
  error: ArrowQuantError | null,
  signalExitCode: number | null,
): Promise<number> {
  const unwritten = await terminal.flush();
  if (unwritten !== null && error === null) {
    complainAbout(unwritten, terminal);
    await terminal.flush();
    return unwritten.exitCode;
  }
  if (error === null) return 0;
  return error.code === "E_INTERRUPTED" && signalExitCode !== null ? signalExitCode : error.exitCode;
}
