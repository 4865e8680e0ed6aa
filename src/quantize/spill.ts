/** A layer's chunks on disk, for layers too large to hold while it is measured whether they are good enough. */
import { rm } from "node:fs/promises";
import { OutputFile } from "../io/output.js";

export class Spill {
  readonly #file: OutputFile;
  #removed = false;

  private constructor(file: OutputFile) {
    this.#file = file;
  }

  static async create(path: string): Promise<Spill> {
    return new Spill(await OutputFile.create(path));
  }

  /** Appends a chunk's buffer; returns where it begins. */
  append(bytes: Uint8Array): Promise<number> {
    return this.#file.write(bytes);
  }

  read(into: Uint8Array, byteOffset: number): Promise<void> {
    return this.#file.read(into, byteOffset);
  }

  /** May be called again. */
  async remove(): Promise<void> {
    if (this.#removed) return;
    this.#removed = true;
    await this.#file.close();
    await rm(this.#file.path, { force: true });
  }
}
