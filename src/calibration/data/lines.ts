/** Lines of a stream of bytes that are not blank, in memory that does not grow with the stream. */

const NEWLINE = 0x0a;

/** Room for the beginning of a line at first; grows with the longest line met. */
const INITIAL_BYTES = 64 * 1024;

export interface Line {
  /** From 1; blank lines count. */
  readonly number: number;
  /** Without the newline, good until the next line is asked for; null where the line is longer than the limit. */
  readonly bytes: Buffer | null;
}

export async function* splitLines(
  chunks: AsyncIterable<Uint8Array>,
  maxLineBytes: number,
): AsyncGenerator<Line, void, undefined> {
  let number = 1;
  const start = new LineStart(maxLineBytes);
  for await (const bytes of chunks) {
    const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, from)) {
      const line = start.finish(chunk.subarray(from, end));
      if (line === null || !isBlank(line)) yield { number, bytes: line };
      number += 1;
      from = end + 1;
    }
    start.add(chunk.subarray(from));
  }
  const last = start.finish(Buffer.alloc(0));
  if (last === null || !isBlank(last)) yield { number, bytes: last };
}

function isBlank(line: Uint8Array): boolean {
  return line.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d);
}

/** The part of a line that came with earlier chunks. */
class LineStart {
  readonly #maxBytes: number;
  #buffer = Buffer.allocUnsafeSlow(INITIAL_BYTES);
  byteLength = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Beyond the limit only the length is kept: the line will not be taken. */
  add(bytes: Buffer): void {
    const end = this.byteLength + bytes.length;
    if (end <= this.#maxBytes) {
      if (end > this.#buffer.length) {
        const grown = Buffer.allocUnsafeSlow(Math.min(Math.max(end, 2 * this.#buffer.length), this.#maxBytes));
        this.#buffer.copy(grown, 0, 0, this.byteLength);
        this.#buffer = grown;
      }
      bytes.copy(this.#buffer, this.byteLength);
    }
    this.byteLength = end;
  }

  /** The whole line, whose end is `rest`. */
  finish(rest: Buffer): Buffer | null {
    if (this.byteLength === 0) return rest.length <= this.#maxBytes ? rest : null;
    this.add(rest);
    const line = this.byteLength <= this.#maxBytes ? this.#buffer.subarray(0, this.byteLength) : null;
    this.byteLength = 0;
    return line;
  }
}
