/** Writes a float16 safetensors model of DiT-XL/2's shapes, with as many blocks as a size asks for. */
import { closeSync, existsSync, mkdirSync, openSync, renameSync, statSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** DiT-XL/2 (arXiv 2212.09748), named as diffusers' DiTTransformer2DModel names it. */
const HIDDEN = 1152;
const MLP = 4 * HIDDEN;
const TIME_FREQUENCIES = 256;
const CLASSES = 1000 + 1;
const PATCH = 2;
const IN_CHANNELS = 4;
const OUT_CHANNELS = 8;

const BYTES_PER_WEIGHT = 2;

/** Random numbers are made once, this many, and written in runs that start anywhere among them. */
const TABLE_WEIGHTS = 1 << 22;
const RUN_WEIGHTS = 1 << 18;
const SEED = 0x9e3779b9;

/** Changes with anything that changes the bytes written, since files are cached by name. */
const GENERATION = 1;

const CONFIG = {
  _class_name: "DiTTransformer2DModel",
  _diffusers_version: "0.42.1",
  activation_fn: "gelu-approximate",
  attention_bias: true,
  attention_head_dim: 72,
  in_channels: IN_CHANNELS,
  norm_type: "ada_norm_zero",
  num_attention_heads: 16,
  num_embeds_ada_norm: 1000,
  out_channels: OUT_CHANNELS,
  patch_size: PATCH,
  sample_size: 32,
};

function listLinear(name, outFeatures, inFeatures) {
  return [
    [`${name}.bias`, [outFeatures]],
    [`${name}.weight`, [outFeatures, inFeatures]],
  ];
}

function listBlock(index) {
  const block = `transformer_blocks.${index}`;
  const attention = ["to_k", "to_out.0", "to_q", "to_v"].flatMap((part) =>
    listLinear(`${block}.attn1.${part}`, HIDDEN, HIDDEN),
  );
  const embedder = `${block}.norm1.emb.timestep_embedder`;
  return [
    ...attention,
    ...listLinear(`${block}.ff.net.0.proj`, MLP, HIDDEN),
    ...listLinear(`${block}.ff.net.2`, HIDDEN, MLP),
    [`${block}.norm1.emb.class_embedder.embedding_table.weight`, [CLASSES, HIDDEN]],
    ...listLinear(`${embedder}.linear_1`, HIDDEN, TIME_FREQUENCIES),
    ...listLinear(`${embedder}.linear_2`, HIDDEN, HIDDEN),
    ...listLinear(`${block}.norm1.linear`, 6 * HIDDEN, HIDDEN),
  ];
}

function listTensors(blockCount) {
  return [
    ["pos_embed.proj.bias", [HIDDEN]],
    ["pos_embed.proj.weight", [HIDDEN, IN_CHANNELS, PATCH, PATCH]],
    ...listLinear("proj_out_1", 2 * HIDDEN, HIDDEN),
    ...listLinear("proj_out_2", PATCH * PATCH * OUT_CHANNELS, HIDDEN),
    ...Array.from({ length: blockCount }, (_, index) => listBlock(index)).flat(),
  ];
}

function countWeights(tensors) {
  return tensors.reduce((sum, [, shape]) => sum + shape.reduce((count, size) => count * size, 1), 0);
}

/** Uniform 32-bit integers: mulberry32, a public-domain generator. */
function seedRandom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

/** float16 bits of a float32, rounded half up; magnitudes here are far from 0 and from overflow. */
function toFloat16Bits(bits32) {
  const sign = (bits32 >>> 16) & 0x8000;
  const exponent = ((bits32 >>> 23) & 0xff) - 112;
  if (exponent <= 0) return sign;
  const rounded = ((exponent << 23) | (bits32 & 0x7fffff)) + 0x1000;
  return sign | (rounded >>> 13);
}

/** Gaussian weights of the standard deviation that trained linear layers have, as float16 bits. */
function makeTable(random) {
  const table = new Uint16Array(TABLE_WEIGHTS);
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  const uniform = () => (random() + 0.5) / 2 ** 32;
  for (let index = 0; index < TABLE_WEIGHTS; index += 2) {
    const radius = 0.03 * Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    float[0] = radius * Math.cos(angle);
    table[index] = toFloat16Bits(bits[0]);
    float[0] = radius * Math.sin(angle);
    table[index + 1] = toFloat16Bits(bits[0]);
  }
  return table;
}

function makeHeader(tensors) {
  let begin = 0;
  const entries = tensors.map(([name, shape]) => {
    const end = begin + BYTES_PER_WEIGHT * shape.reduce((count, size) => count * size, 1);
    const entry = [name, { dtype: "F16", shape, data_offsets: [begin, end] }];
    begin = end;
    return entry;
  });
  const text = JSON.stringify(Object.fromEntries(entries));
  const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8, " "));
  const header = Buffer.alloc(8 + padded.length);
  header.writeBigUInt64LE(BigInt(padded.length));
  padded.copy(header, 8);
  return header;
}

function writeModelFile(path, tensors) {
  const random = seedRandom(SEED);
  const table = Buffer.from(makeTable(random).buffer);
  const file = openSync(path, "w");
  try {
    writeSync(file, makeHeader(tensors));
    let left = countWeights(tensors);
    while (left > 0) {
      const weights = Math.min(left, RUN_WEIGHTS);
      const start = random() % (TABLE_WEIGHTS - weights + 1);
      writeSync(file, table, start * BYTES_PER_WEIGHT, weights * BYTES_PER_WEIGHT);
      left -= weights;
    }
  } finally {
    closeSync(file);
  }
}

/**
 * The model of about `bytes` bytes: made once, then found again in the temporary folder.
 * Gives the component folder, its weight file and what it holds.
 */
export function prepareModel(bytes) {
  const outside = countWeights(listTensors(0));
  const perBlock = countWeights(listBlock(0));
  const blockCount = Math.max(1, Math.round((bytes / BYTES_PER_WEIGHT - outside) / perBlock));
  const tensors = listTensors(blockCount);
  const folder = join(tmpdir(), `arrowquant-bench-${GENERATION}-${blockCount}`, "transformer");
  const file = join(folder, "diffusion_pytorch_model.safetensors");
  const byteLength = makeHeader(tensors).length + countWeights(tensors) * BYTES_PER_WEIGHT;
  if (!existsSync(file) || statSync(file).size !== byteLength) {
    mkdirSync(folder, { recursive: true });
    const config = { ...CONFIG, num_layers: blockCount };
    writeFileSync(join(folder, "config.json"), JSON.stringify(config, null, 2));
    writeModelFile(`${file}.${process.pid}.tmp`, tensors);
    renameSync(`${file}.${process.pid}.tmp`, file);
  }
  return { folder, file, byteLength, blockCount, weights: countWeights(tensors) };
}
