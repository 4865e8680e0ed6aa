/**
 * What stops a command from outside: SIGINT and SIGTERM, the first of which asks it to clean up, the second ends
 * the process at once; and faults that no promise of the command's own carries (an error in an event handler, a
 * rejection that nobody awaits), which stop it in the same orderly way.
 */
import { ArrowQuantError, toArrowQuantError } from "../errors.js";

/** 128 + the signal's number, as shells count. */
const SIGNAL_EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;
type StopSignal = keyof typeof SIGNAL_EXIT_CODES;

/** How long a command may take to clean up after a stray fault before the process ends without it. */
const STRAY_FAULT_GRACE_MS = 5000;

export interface SignalWatch {
  /** Aborted with an E_INTERRUPTED error, `details.signal` naming the signal, or with the stray fault. */
  readonly signal: AbortSignal;
  /** The exit code of the signal that came; null where none did. */
  exitCode(): number | null;
  stop(): void;
}

export function watchSignals(): SignalWatch {
  const controller = new AbortController();
  let received: StopSignal | null = null;
  const onSignal = (name: NodeJS.Signals): void => {
    const code = SIGNAL_EXIT_CODES[name as StopSignal];
    // Temporary files that this leaves behind are swept by the next run.
    if (received !== null) process.exit(code);
    received = name as StopSignal;
    controller.abort(new ArrowQuantError("E_INTERRUPTED", `stopped by ${name}`, { details: { signal: name } }));
  };
  let grace: NodeJS.Timeout | undefined;
  const onStrayFault = (thrown: unknown): void => {
    // After a signal it is most likely the abort itself that somebody forgot to await.
    controller.abort(toArrowQuantError(thrown));
    grace ??= setTimeout(() => {
      console.error(`${toArrowQuantError(controller.signal.reason).code}: ${String(thrown)}`);
      process.exit(received === null ? 1 : SIGNAL_EXIT_CODES[received]);
    }, STRAY_FAULT_GRACE_MS);
  };
  process.on("uncaughtException", onStrayFault);
  const names = Object.keys(SIGNAL_EXIT_CODES) as StopSignal[];
  for (const name of names) process.on(name, onSignal);
  return {
    signal: controller.signal,
    exitCode: () => (received === null ? null : SIGNAL_EXIT_CODES[received]),
    stop: () => {
      clearTimeout(grace);
      process.off("uncaughtException", onStrayFault);
      for (const name of names) process.off(name, onSignal);
    },
  };
}
