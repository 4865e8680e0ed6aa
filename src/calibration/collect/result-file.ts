/** The statistics file as a statistics thread sees it: places that are filled in whatever order. */
import { closeSync, openSync, writeSync } from "node:fs";
import { writeError } from "../../io/output.js";

export class ResultFile {
  readonly #path: string;
  readonly #fd: number;

  /** @throws E_WRITE */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#fd = openSync(path, "r+");
    } catch (thrown) {
      throw writeError(thrown, path);
    }
  }

  /** Writes the bytes of `values`; @throws E_WRITE */
  write(values: Float32Array | Int32Array | Uint32Array | BigInt64Array, byteOffset: number): void {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    try {
      for (let done = 0; done < bytes.byteLength; ) {
        done += writeSync(this.#fd, bytes, done, bytes.byteLength - done, byteOffset + done);
      }
    } catch (thrown) {
      throw writeError(thrown, this.#path);
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}
