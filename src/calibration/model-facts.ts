/** What the model's own configuration says of its inputs: classes, sizes, the sampler. */
import { dirname, join } from "node:path";
import { ArrowQuantError } from "../errors.js";
import { isJsonObject, type JsonObject, type JsonValue, parseJsonObject } from "../formats/json.js";
import { readSmallFile } from "../io/read.js";
import type { Component } from "../tensor/info.js";
import type { GraphInput } from "./graph-inputs.js";

/** A scheduler's configuration has some dozen keys; trained betas make it some ten kilobytes. */
const MAX_SCHEDULER_BYTES = 4 * 1024 * 1024;

/** Keys of config.json that count classes, of DiT, UNets and other diffusers models. */
const CLASS_KEYS = ["num_embeds_ada_norm", "num_class_embeds", "num_classes"] as const;

/** Keys of config.json with the channels of encoder states. */
const ENCODER_CHANNEL_KEYS = ["cross_attention_dim", "joint_attention_dim", "caption_channels"] as const;

/** Tokens of a prompt where the graph leaves them open: those of CLIP. */
const PROMPT_TOKENS = 77;

/** The parsed config.json; empty where there is none. */
export function readModelConfig({ configText }: Component): JsonObject {
  if (configText === null) return new Map();
  return parseJsonObject(Buffer.from(configText, "utf8"), "config.json", { allowNonFinite: true });
}

/** How many classes labels are drawn from; null where the configuration does not say. */
export function countClasses(config: JsonObject): number | null {
  for (const key of CLASS_KEYS) {
    const count = config.get(key);
    if (typeof count === "number" && Number.isInteger(count) && count > 0) return count;
  }
  return null;
}

/**
 * The shape of an input of one sample, open axes filled in from the configuration.
 * Throws `E_CALIBRATION` where it does not tell.
 */
export function settleShape({ role, name, shape }: GraphInput, config: JsonObject): number[] {
  return shape.map((size, axis) => {
    if (typeof size === "number") return size;
    const settled = openSize(role, axis, shape.length, config);
    if (settled !== null) return settled;
    throw new ArrowQuantError(
      "E_CALIBRATION",
      `input "${name}" is [${shape}] and config.json does not say how large axis "${size}" is`,
      {
        hint: "give calibration data with this input: --calibration DATA",
        details: { input: name, shape, axis },
      },
    );
  });
}

function openSize(role: GraphInput["role"], axis: number, rank: number, config: JsonObject): number | null {
  if (role === "sample") {
    if (axis === 0) return wholeNumber(config.get("in_channels"));
    const size = config.get("sample_size");
    return wholeNumber(Array.isArray(size) ? (size as readonly unknown[])[axis - 1] : size);
  }
  if (role === "encoderStates" && axis === rank - 2) return PROMPT_TOKENS;
  if (role === "encoderStates" && axis === rank - 1) {
    return ENCODER_CHANNEL_KEYS.map((key) => wholeNumber(config.get(key))).find((count) => count !== null) ?? null;
  }
  return null;
}

function wholeNumber(value: unknown): number | null {
  return typeof value === "number" && Number.isSafeInteger(value) && value > 0 ? value : null;
}

/**
 * The scheduler_config.json of the pipeline that the model belongs to, as a plain object; null where there is none.
 * Looked for in the model's folder, then in the two folders above it, and likewise from the graph on.
 */
export async function findSchedulerConfig(modelPath: string, graphPath: string): Promise<unknown> {
  const folders = [modelPath, graphPath].flatMap((path) => [path, dirname(path), dirname(dirname(path))]);
  for (const folder of folders) {
    for (const path of [join(folder, "scheduler", "scheduler_config.json"), join(folder, "scheduler_config.json")]) {
      const bytes = await readSmallFile(path, MAX_SCHEDULER_BYTES).catch((thrown: unknown) => {
        if (thrown instanceof ArrowQuantError && thrown.code === "E_NOT_FOUND") return null;
        throw thrown;
      });
      if (bytes === null) continue;
      return toPlain(parseJsonObject(bytes, `"${path}"`, { allowNonFinite: true }));
    }
  }
  return null;
}

function toPlain(value: JsonValue): unknown {
  if (Array.isArray(value)) return value.map(toPlain);
  return isJsonObject(value) ? Object.fromEntries([...value].map(([key, part]) => [key, toPlain(part)])) : value;
}
