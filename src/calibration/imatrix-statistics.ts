/** An importance matrix as a statistics file: its names mapped to the model's, its moments as they are. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { ArrowQuantError } from "../errors.js";
import { readError } from "../io/read.js";
import { isFloat } from "../tensor/dtype.js";
import type { Component, TensorInfo } from "../tensor/info.js";
import { viewAs2d } from "../tensor/layout.js";
import { type ImatrixEntry, readImatrix } from "./imatrix.js";
import type { StatisticsInfo, ValueInfo } from "./statistics-info.js";
import { StatisticsWriter } from "./statistics-writer.js";

/** What wrappers put before the names of a denoiser's parameters, in checkpoints and in GGUF files of them. */
const PREFIXES = /^(?:model\.diffusion_model\.|diffusion_model\.|first_stage_model\.|model\.|transformer\.|unet\.)/;

/**
 * What transformers calls the tensors of a language model, and LLaDA (a diffusion language model) where it differs, as
 * llama.cpp's names. Source: gguf-py/gguf/tensor_mapping.py.
 */
const LANGUAGE_MODEL_NAMES: readonly (readonly [RegExp, string])[] = [
  [/^(?:layers\.(\d+)\.self_attn|blocks\.(\d+))\.q_proj$/, "blk.$1$2.attn_q"],
  [/^(?:layers\.(\d+)\.self_attn|blocks\.(\d+))\.k_proj$/, "blk.$1$2.attn_k"],
  [/^(?:layers\.(\d+)\.self_attn|blocks\.(\d+))\.v_proj$/, "blk.$1$2.attn_v"],
  [/^(?:layers\.(\d+)\.self_attn\.o_proj|blocks\.(\d+)\.attn_out)$/, "blk.$1$2.attn_output"],
  [/^(?:layers\.(\d+)\.mlp\.gate_proj|blocks\.(\d+)\.ff_proj)$/, "blk.$1$2.ffn_gate"],
  [/^(?:layers\.(\d+)\.mlp\.up_proj|blocks\.(\d+)\.up_proj)$/, "blk.$1$2.ffn_up"],
  [/^(?:layers\.(\d+)\.mlp\.down_proj|blocks\.(\d+)\.ff_out)$/, "blk.$1$2.ffn_down"],
  [/^(?:lm_head|ff_out)$/, "output"],
];

export interface ImatrixImport {
  readonly path: string;
  /** SHA-256 of the imatrix. */
  readonly fingerprint: string;
  readonly component: Component;
  readonly modelFingerprint: string;
  readonly outputPath: string;
}

/** SHA-256 of the file. */
export async function imatrixFingerprint(path: string): Promise<string> {
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  } catch (thrown) {
    throw readError(thrown, path, "read");
  }
  return hash.digest("hex");
}

/**
 * Writes the statistics of the tensors that an imatrix knows.
 * @throws E_CALIBRATION where it knows none, and what `readImatrix` throws
 */
export async function importImatrix(job: ImatrixImport): Promise<StatisticsInfo> {
  const { path, component } = job;
  const byName = new Map((await readImatrix(path)).map((entry) => [plainName(entry.name), entry]));
  const found = new Map<TensorInfo, ImatrixEntry>();
  const unmatched: { tensorName: string; reason: string }[] = [];
  for (const tensor of component.tensors) {
    if (tensor.shape.length < 2 || !isFloat(tensor.dtype)) continue;
    const entry = byName.get(plainName(tensor.name));
    const { cols } = viewAs2d(tensor.shape);
    if (entry?.meansq.length === cols) found.set(tensor, entry);
    else {
      const reason =
        entry === undefined
          ? "the imatrix does not know it"
          : `the imatrix has ${entry.meansq.length} columns of it, the tensor ${cols}`;
      unmatched.push({ tensorName: tensor.name, reason });
    }
  }
  if (found.size === 0) {
    const [example] = byName.keys();
    throw new ArrowQuantError("E_CALIBRATION", `imatrix "${path}" knows none of the model's tensors`, {
      hint: `it is of another model: it knows ${JSON.stringify(example ?? "")}`,
      details: { path, entries: byName.size, tensors: unmatched.length },
    });
  }
  const info = describe(job, found, unmatched);
  const writer = await StatisticsWriter.create(job.outputPath, info);
  try {
    for (const [tensor, { meansq, count }] of found) {
      await writer.write(tensor.name, "meansq", meansq);
      await writer.write(tensor.name, "count", BigInt64Array.of(BigInt(count)));
    }
    await writer.finish();
  } finally {
    await writer.close();
  }
  return info;
}

/** Names of one tensor in different worlds become the same. */
function plainName(name: string): string {
  const stem = stripPrefixes(name.replace(/\.weight$/, ""));
  const known = LANGUAGE_MODEL_NAMES.find(([pattern]) => pattern.test(stem));
  return known === undefined ? stem : stem.replace(...known);
}

function stripPrefixes(name: string): string {
  const stripped = name.replace(PREFIXES, "");
  return stripped === name ? name : stripPrefixes(stripped);
}

function describe(
  { component, fingerprint, modelFingerprint }: ImatrixImport,
  found: ReadonlyMap<TensorInfo, ImatrixEntry>,
  unmatched: StatisticsInfo["unmatched"],
): StatisticsInfo {
  const reason = "an imatrix has none";
  const describeEntry = ({ meansq: { length } }: ImatrixEntry, name: string): ValueInfo => ({
    inputs: [name],
    channels: length,
    conv: null,
    cols: length,
    hessian: { reason },
    heldBack: { reason },
  });
  return {
    source: { kind: "imatrix", fingerprint },
    component: component.name,
    modelFingerprint,
    graph: null,
    settings: { samples: 0, hessians: false, heldBackEvery: 0 },
    sampleCount: 0,
    heldBackCount: 0,
    // All that there is happened at one time, which is not known.
    time: { input: null, start: 0, end: 1, bins: [{ start: 0, end: 1, value: 0, count: 0 }] },
    secondMomentsOnly: true,
    values: Object.fromEntries([...found].map(([{ name }, entry]) => [name, describeEntry(entry, entry.name)])),
    layers: Object.fromEntries([...found.keys()].map(({ name }) => [name, name])),
    unmatched,
  };
}
