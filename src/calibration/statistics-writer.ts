/** A statistics file being written: header first, then tensors at their places, in whatever order they come. */
import { layOutSafetensors } from "../formats/safetensors/writer.js";
import { OutputFile } from "../io/output.js";
import {
  INFO_KEY,
  listStatisticsTensors,
  STATISTICS_KEY,
  STATISTICS_VERSION,
  type StatisticsInfo,
  tensorNameOf,
} from "./statistics-info.js";

export class StatisticsWriter {
  readonly #file: OutputFile;
  /** By value, then by part. */
  readonly #places: ReadonlyMap<string, ReadonlyMap<string, number>>;

  private constructor(file: OutputFile, places: ReadonlyMap<string, ReadonlyMap<string, number>>) {
    this.#file = file;
    this.#places = places;
  }

  /** Creates the file in its full length, zeros for what is not written. @throws E_WRITE */
  static async create(path: string, info: StatisticsInfo): Promise<StatisticsWriter> {
    const tensors = listStatisticsTensors(info);
    const layout = layOutSafetensors(tensors, {
      [STATISTICS_KEY]: STATISTICS_VERSION,
      [INFO_KEY]: JSON.stringify(info),
    });
    const places = new Map<string, Map<string, number>>();
    for (const key of Object.keys(info.values)) places.set(key, new Map());
    const prefixes = new Map(Object.keys(info.values).map((key) => [tensorNameOf(key, ""), key]));
    for (const { name } of tensors) {
      const dot = name.lastIndexOf(".") + 1;
      const key = prefixes.get(name.slice(0, dot)) as string;
      places.get(key)?.set(name.slice(dot), layout.byteOffsets.get(name) as number);
    }
    const file = await OutputFile.create(path);
    try {
      await file.write(layout.header);
      if (layout.byteLength > layout.header.byteLength) await file.writeAt(new Uint8Array(1), layout.byteLength - 1);
    } catch (thrown) {
      await file.close();
      throw thrown;
    }
    return new StatisticsWriter(file, places);
  }

  /** Where the tensors of a value begin, by part. */
  byteOffsetsOf(key: string): ReadonlyMap<string, number> {
    return this.#places.get(key) ?? new Map();
  }

  /** Writes a whole tensor. */
  async write(key: string, part: string, values: Float32Array | BigInt64Array): Promise<void> {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    await this.#file.writeAt(bytes, this.byteOffsetsOf(key).get(part) as number);
  }

  /** Makes sure that everything is on the disk. */
  async finish(): Promise<void> {
    await this.#file.sync();
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
