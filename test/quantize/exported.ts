/** What an export wrote, read without any of the program's own readers. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export interface ReadTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Buffer;
}

export function readSafetensors(path: string): Map<string, ReadTensor> {
  const file = readFileSync(path);
  const dataStart = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, dataStart)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const { __metadata__, ...entries } = header;
  return new Map(
    Object.entries(entries).map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [begin, end],
        },
      ]) => [name, { dtype, shape, bytes: file.subarray(dataStart + begin, dataStart + end) }],
    ),
  );
}

/** All tensors of a component's folder; throws where its index does not say exactly what its shards hold. */
export function readWeights(folder: string, base = "diffusion_pytorch_model"): Map<string, ReadTensor> {
  const indexPath = join(folder, `${base}.safetensors.index.json`);
  if (!existsSync(indexPath)) return readSafetensors(join(folder, `${base}.safetensors`));
  const index = JSON.parse(readFileSync(indexPath, "utf8")) as {
    metadata: { total_size: number };
    weight_map: Record<string, string>;
  };
  const all = new Map<string, ReadTensor>();
  let totalBytes = 0;
  for (const shard of readdirSync(folder).filter((name) => name.endsWith(".safetensors"))) {
    for (const [name, tensor] of readSafetensors(join(folder, shard))) {
      if (all.has(name)) throw new Error(`${name} stands in two shards`);
      if (index.weight_map[name] !== shard) throw new Error(`${name} is in ${shard}, the index says otherwise`);
      all.set(name, tensor);
      totalBytes += tensor.bytes.length;
    }
  }
  if (Object.keys(index.weight_map).length !== all.size) throw new Error("the index names more than there is");
  if (index.metadata.total_size !== totalBytes) throw new Error(`the index counts ${index.metadata.total_size} bytes`);
  return all;
}

/** Every file below a folder, by its path within it. */
export function listTree(folder: string, inside = ""): string[] {
  return readdirSync(join(folder, inside), { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(inside, entry.name);
      return entry.isDirectory() ? listTree(folder, path) : [path];
    })
    .sort();
}
