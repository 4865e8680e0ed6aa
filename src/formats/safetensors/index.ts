/**
 * A set of shards and its index, `NAME.safetensors.index.json`: `weight_map` says which shard holds which
 * tensor, `metadata.total_size` how many bytes all tensors have.
 * Source: https://huggingface.co/docs/huggingface_hub/package_reference/serialization
 */
import { basename, dirname } from "node:path";
import { ArrowQuantError } from "../../errors.js";
import { confinePath } from "../../io/confine.js";
import { readSmallFile } from "../../io/read.js";
import type { SourceFile, TensorInfo } from "../../tensor/info.js";
import { JsonScanner, quoteName } from "../json.js";
import { openSafetensors, type WeightSet } from "./reader.js";

/** Largest index: the largest header (a name and a shard take about as much as a header's entry). */
export const MAX_INDEX_BYTES = 100_000_000;

/** Most shards of a set. The largest public models have a few hundred; shard names count to 99,999. */
export const MAX_SHARDS = 99_999;

export interface ShardIndex {
  /** Tensor name to shard name. */
  readonly weightMap: ReadonlyMap<string, string>;
  /** `metadata.total_size` where it is a whole number. */
  readonly totalByteLength: number | null;
}

/** Parses an index. Throws `E_UTF8`, `E_JSON`, `E_DUPLICATE`, `E_LIMIT`, `E_INDEX`. */
export function parseShardIndex(bytes: Uint8Array, source: string): ShardIndex {
  const scanner = new JsonScanner(bytes, source);
  const seen = new Set<string>();
  const weightMap = new Map<string, string>();
  let totalByteLength: number | null = null;
  if (!scanner.atObject()) scanner.fail("E_INDEX", `an object is expected, this is ${scanner.describeNext()}`);
  scanner.readObject((key, at) => {
    if (seen.has(key)) scanner.fail("E_DUPLICATE", `key ${quoteName(key)} stands twice`, at);
    seen.add(key);
    if (key === "weight_map") readWeightMap(scanner, weightMap);
    else if (key === "metadata" && scanner.atObject()) totalByteLength = readTotalSize(scanner);
    else scanner.skipValue();
  });
  scanner.skipWhitespace();
  if (scanner.offset < bytes.length) scanner.fail("E_JSON", "text goes on after the object");
  if (weightMap.size === 0) {
    const problem = seen.has("weight_map") ? 'its "weight_map" is empty' : 'it has no "weight_map"';
    throw new ArrowQuantError("E_INDEX", `${source}: ${problem}`);
  }
  return { weightMap, totalByteLength };
}

/**
 * Opens every shard that the index `indexPath` names. Throws `E_PATH` for a shard outside the index's
 * folder, `E_DUPLICATE` for a tensor in two shards, `E_INDEX` where map and shards disagree.
 */
export async function openShards(indexPath: string): Promise<WeightSet> {
  const folder = dirname(indexPath);
  const source = `index "${indexPath}"`;
  const index = parseShardIndex(await readSmallFile(indexPath, MAX_INDEX_BYTES), source);
  // In order of name: the order of the map says nothing, and the native file keeps this one.
  const shardNames = [...new Set(index.weightMap.values())].sort();
  if (shardNames.length > MAX_SHARDS) {
    throw new ArrowQuantError("E_LIMIT", `${source} names ${shardNames.length} shards, the limit is ${MAX_SHARDS}`);
  }
  const files: SourceFile[] = [];
  const tensors: TensorInfo[] = [];
  const metadata: ReadonlyMap<string, string>[] = [];
  for (const name of shardNames) {
    const shard = await openSafetensors(await confineShard(folder, name, source), name, files.length);
    files.push(...shard.files);
    for (const tensor of shard.tensors) tensors.push(tensor);
    metadata.push(...shard.metadata);
  }
  checkMap(index.weightMap, tensors, shardNames, source);
  return { files, tensors, metadata, warnings: checkTotal(index, tensors, basename(indexPath)) };
}

function readWeightMap(scanner: JsonScanner, weightMap: Map<string, string>): void {
  if (!scanner.atObject()) {
    scanner.fail("E_INDEX", `"weight_map": an object is expected, this is ${scanner.describeNext()}`);
  }
  scanner.readObject((tensor, at) => {
    if (weightMap.has(tensor)) scanner.fail("E_DUPLICATE", `${quoteName(tensor)} stands twice`, at);
    if (!scanner.atString()) {
      scanner.fail("E_INDEX", `${quoteName(tensor)}: a shard's name is expected, this is ${scanner.describeNext()}`);
    }
    weightMap.set(tensor, scanner.readString());
  });
}

/** Only a plain count is used; some writers put a float or a string there, which says nothing wrong. */
function readTotalSize(scanner: JsonScanner): number | null {
  let total: number | null = null;
  const seen = new Set<string>();
  scanner.readObject((key, at) => {
    if (seen.has(key)) scanner.fail("E_DUPLICATE", `key ${quoteName(key)} stands twice`, at);
    seen.add(key);
    if (key !== "total_size") return scanner.skipValue();
    const value = scanner.readValue();
    if (Number.isSafeInteger(value)) total = value as number;
  });
  return total;
}

async function confineShard(folder: string, name: string, source: string): Promise<string> {
  try {
    return await confinePath(folder, name);
  } catch (error) {
    if (!(error instanceof ArrowQuantError) || error.code !== "E_NOT_FOUND") throw error;
    throw new ArrowQuantError("E_NOT_FOUND", `${source} names shard ${quoteName(name)}, which is not there`, {
      hint: "the download is incomplete: fetch the missing shards",
      details: { folder, shard: name },
      cause: error,
    });
  }
}

function checkMap(
  weightMap: ReadonlyMap<string, string>,
  tensors: readonly TensorInfo[],
  shardNames: readonly string[],
  source: string,
): void {
  const shardOf = new Map<string, string>();
  for (const { name, location } of tensors) {
    const shard = shardNames[location.file] as string;
    const other = shardOf.get(name);
    if (other !== undefined) {
      const message = `${quoteName(name)} stands in two shards, ${quoteName(other)} and ${quoteName(shard)}`;
      throw new ArrowQuantError("E_DUPLICATE", message, {
        details: { tensor: name, shards: [other, shard] },
      });
    }
    shardOf.set(name, shard);
  }
  for (const [name, shard] of shardOf) {
    const mapped = weightMap.get(name);
    if (mapped === shard) continue;
    const said = mapped === undefined ? "does not name it" : `puts it in ${quoteName(mapped)}`;
    const message = `shard ${quoteName(shard)} holds ${quoteName(name)}, ${source} ${said}`;
    throw new ArrowQuantError("E_INDEX", message, {
      details: { tensor: name, shard, mapped: mapped ?? null },
    });
  }
  for (const [name, mapped] of weightMap) {
    if (shardOf.has(name)) continue;
    const message = `${source} puts ${quoteName(name)} in ${quoteName(mapped)}, which does not hold it`;
    throw new ArrowQuantError("E_INDEX", message, { details: { tensor: name, shard: null, mapped } });
  }
}

/** A wrong total is no reason to refuse: tied weights are counted twice by some writers. */
function checkTotal(index: ShardIndex, tensors: readonly TensorInfo[], indexName: string): string[] {
  const total = tensors.reduce((sum, tensor) => sum + tensor.location.byteLength, 0);
  if (index.totalByteLength === null || index.totalByteLength === total) return [];
  return [`${indexName} gives a total of ${index.totalByteLength} bytes, its shards hold ${total}`];
}
