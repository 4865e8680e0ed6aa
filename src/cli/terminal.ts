/**
 * stdout and stderr: results on the one, everything else on the other.
 *
 * A pipe that is closed at its other end (`| head -1`) ends output quietly: what is still to be written is
 * dropped, the work goes on, and the exit code is that of the work. Any other failure to write results (a full
 * disk behind `>`) is an error.
 */
import type { WriteStream } from "node:tty";
import type { ArrowQuantError } from "../errors.js";
import { writeError } from "../io/output.js";

/** Width of the text where the terminal does not tell its own. */
const USUAL_WIDTH = 80;

/** What decides how much is said and how. */
export interface Manner {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
}

/** Read from the raw arguments: errors in the rest of them must obey these already. */
export function readManner(args: readonly string[]): Manner {
  const end = args.indexOf("--");
  const given = new Set(end < 0 ? args : args.slice(0, end));
  return { json: given.has("--json"), quiet: given.has("--quiet"), verbose: given.has("--verbose") };
}

function isSet(variable: string | undefined): boolean {
  return variable !== undefined && variable !== "" && variable !== "0" && variable !== "false";
}

/** https://no-color.org: present and not empty. */
function wantsColor(stream: WriteStream): boolean {
  return stream.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== "dumb";
}

class Channel {
  readonly stream: WriteStream;
  #pending: Promise<void> = Promise.resolve();
  #failure: NodeJS.ErrnoException | null = null;

  constructor(stream: WriteStream) {
    this.stream = stream;
    // Without a listener the same error, which the write's callback is told too, would end the process.
    stream.on("error", (error) => {
      this.#failure ??= error;
    });
  }

  write(text: string): void {
    if (this.#failure !== null) return;
    const written = new Promise<void>((resolve) => {
      this.stream.write(text, (error) => {
        if (error) this.#failure ??= error;
        resolve();
      });
    });
    this.#pending = this.#pending.then(() => written);
  }

  /** Waits until everything is written; the failure that stopped it, null for none or a closed pipe. */
  async flush(): Promise<NodeJS.ErrnoException | null> {
    await this.#pending;
    return this.#failure?.code === "EPIPE" ? null : this.#failure;
  }
}

export class Terminal {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  /** Whether stderr shows moving progress. */
  readonly interactive: boolean;
  readonly #out = new Channel(process.stdout as WriteStream);
  readonly #err = new Channel(process.stderr as WriteStream);

  constructor(manner: Manner) {
    this.json = manner.json;
    this.quiet = manner.quiet;
    this.verbose = manner.verbose;
    this.interactive =
      process.stderr.isTTY === true && process.env.TERM !== "dumb" && !isSet(process.env.CI) && !manner.quiet;
  }

  /** How text for stdout is drawn. */
  get style(): { color: boolean; width: number } {
    const { stream } = this.#out;
    return {
      color: wantsColor(stream),
      width: stream.isTTY === true ? (stream.columns ?? USUAL_WIDTH) : Infinity,
    };
  }

  get errorColor(): boolean {
    return wantsColor(this.#err.stream);
  }

  get errorWidth(): number {
    return this.#err.stream.columns ?? USUAL_WIDTH;
  }

  /** A result, on stdout. */
  print(text: string): void {
    this.#out.write(text);
  }

  /** A line on stderr, unless --quiet. */
  note(line: string): void {
    if (!this.quiet) this.#err.write(`${line}\n`);
  }

  /** A line on stderr that --quiet does not silence. */
  complain(line: string): void {
    this.#err.write(`${line}\n`);
  }

  /** Waits for both streams; an error where results could not be written. */
  async flush(): Promise<ArrowQuantError | null> {
    const failure = await this.#out.flush();
    await this.#err.flush();
    return failure === null ? null : writeError(failure, "standard output");
  }
}
