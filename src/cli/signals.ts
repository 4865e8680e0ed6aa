/** SIGINT and SIGTERM: the first asks the job to stop and clean up, the second ends the process at once. */
import { ArrowQuantError } from "../errors.js";

/** 128 + the signal's number, as shells count. */
export const SIGNAL_EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;
type StopSignal = keyof typeof SIGNAL_EXIT_CODES;

export interface SignalWatch {
  /** Aborted with an E_INTERRUPTED error, `details.signal` naming the signal. */
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
    controller.abort(
      new ArrowQuantError("E_INTERRUPTED", `stopped by ${name}`, { details: { signal: name } }),
    );
  };
  const names = Object.keys(SIGNAL_EXIT_CODES) as StopSignal[];
  for (const name of names) process.on(name, onSignal);
  return {
    signal: controller.signal,
    exitCode: () => (received === null ? null : SIGNAL_EXIT_CODES[received]),
    stop: () => {
      for (const name of names) process.off(name, onSignal);
    },
  };
}
