/**
 * Progress on stderr: a spinner while headers are read, then a bar, where a person watches; a plain line now and
 * then where not (pipes, CI); nothing with --quiet. ora and cli-progress are loaded for a terminal only.
 */
import type { SingleBar } from "cli-progress";
import type { Ora } from "ora";
import { formatBytes, formatClock } from "../report/figures.js";
import { printable, truncateMiddle } from "../report/printable.js";
import type { Terminal } from "./terminal.js";

/** What a view shows; a job's ProgressEvent is one. */
export interface ProgressUpdate {
  readonly layer: string;
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly elapsedSeconds: number;
  readonly remainingSeconds: number | null;
}

export interface ProgressView {
  /** Shows how far the work is; the first call ends the spinner. */
  readonly update: (update: ProgressUpdate) => void;
  /** What the work is on: shown before the bar. */
  readonly label: (text: string) => void;
  /** Takes everything moving off the screen; harmless when called again. */
  readonly stop: () => void;
}

/** Seconds between plain lines: a log of an hour's job stays readable. */
const PLAIN_INTERVAL_SECONDS = 10;
const BAR_WIDTH = 24;
/** Less of a layer's name than this says nothing. */
const MIN_LAYER_WIDTH = 12;

/** `45 %  12.0 MiB of 20.6 MiB  80 MiB/s  0:02 left` */
function figures(update: ProgressUpdate): string {
  const { bytesDone, bytesTotal, elapsedSeconds, remainingSeconds } = update;
  const percent = bytesTotal === 0 ? 100 : Math.floor((100 * bytesDone) / bytesTotal);
  return [
    `${percent} %`.padStart(5),
    `${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`,
    ...(elapsedSeconds > 0 && bytesDone > 0 ? [`${formatBytes(bytesDone / elapsedSeconds)}/s`] : []),
    ...(remainingSeconds === null ? [] : [`${formatClock(remainingSeconds)} left`]),
  ].join("  ");
}

/** One line of `width` characters at most; the layer's name takes what is left. */
export function progressLine(label: string, update: ProgressUpdate, bar: string, width: number): string {
  const fixed = [label, bar, figures(update)].filter((part) => part !== "").join("  ");
  const room = width - fixed.length - 2;
  const layer =
    room < MIN_LAYER_WIDTH || update.layer === "" ? "" : `  ${truncateMiddle(printable(update.layer), room)}`;
  return (fixed + layer).slice(0, width);
}

function drawBar(update: ProgressUpdate): string {
  const share = update.bytesTotal === 0 ? 1 : Math.min(1, update.bytesDone / update.bytesTotal);
  const full = Math.round(share * BAR_WIDTH);
  return "█".repeat(full) + "░".repeat(BAR_WIDTH - full);
}

function plainView(terminal: Terminal, start: string): ProgressView {
  let label = start;
  let lastAt = 0;
  return {
    label: (text) => {
      label = text;
    },
    update: (update) => {
      if (update.elapsedSeconds - lastAt < PLAIN_INTERVAL_SECONDS) return;
      lastAt = update.elapsedSeconds;
      terminal.note(progressLine(label, update, "", Infinity));
    },
    stop: () => {},
  };
}

async function movingView(terminal: Terminal, start: string): Promise<ProgressView> {
  const [{ default: ora }, { default: cliProgress }] = await Promise.all([import("ora"), import("cli-progress")]);
  let label = start;
  let latest: ProgressUpdate | null = null;
  let bar: SingleBar | null = null;
  // discardStdin would put the terminal into raw mode, where Ctrl-C is no signal.
  const spinner: Ora = ora({
    text: label,
    stream: process.stderr,
    isEnabled: true,
    discardStdin: false,
    hideCursor: false,
    color: terminal.errorColor ? "cyan" : false,
  }).start();
  const startBar = (): SingleBar => {
    spinner.stop();
    const started = new cliProgress.SingleBar({
      stream: process.stderr,
      clearOnComplete: true,
      linewrap: true,
      format: () => (latest === null ? "" : progressLine(label, latest, drawBar(latest), terminal.errorWidth - 1)),
    });
    started.start(1, 0);
    return started;
  };
  return {
    label: (text) => {
      label = printable(text);
      spinner.text = label;
    },
    update: (update) => {
      latest = update;
      bar ??= startBar();
      bar.update(update.bytesTotal === 0 ? 1 : update.bytesDone / update.bytesTotal);
    },
    stop: () => {
      spinner.stop();
      bar?.stop();
    },
  };
}

/** `label`: what is being worked on, e.g. `quantizing dit-mnist`. */
export async function openProgress(terminal: Terminal, label: string): Promise<ProgressView> {
  if (terminal.quiet) return { label: () => {}, update: () => {}, stop: () => {} };
  return terminal.interactive ? movingView(terminal, printable(label)) : plainView(terminal, printable(label));
}
