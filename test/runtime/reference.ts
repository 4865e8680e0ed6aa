/** Reference predictions of the shared models: what another implementation gave in full precision. */
import { readFileSync } from "node:fs";
import type { RunTensor } from "../../dist/runtime/runtime.js";

export interface ReferenceStep {
  readonly time: number;
  readonly feeds: Readonly<Record<"sample" | "timestep" | "class_labels", RunTensor>>;
  readonly prediction: Float32Array;
}

/** The tensors of a safetensors file, by name, each in memory of its own. */
export function readTensors(path: string): (name: string) => ArrayBuffer {
  const file = readFileSync(path);
  const headerLength = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + headerLength)) as Record<
    string,
    { data_offsets: [number, number] }
  >;
  return (name) => {
    const entry = header[name];
    if (entry === undefined) throw new Error(`${path} has no ${name}`);
    const [begin, end] = entry.data_offsets;
    return new Uint8Array(file.subarray(8 + headerLength + begin, 8 + headerLength + end)).buffer;
  };
}

export function openReference(path: string): { readonly steps: readonly ReferenceStep[] } {
  const read = readTensors(path);
  const times = new BigInt64Array(read("step_t"));
  const labels = new BigInt64Array(read("step_class_labels"));
  const samples = new Float32Array(read("step_x_t"));
  const predictions = new Float32Array(read("step_pred"));
  const batch = labels.length;
  const size = samples.length / times.length;
  const side = Math.sqrt(size / batch);
  const steps = [...times].map((time, i) => ({
    time: Number(time),
    feeds: {
      sample: { dtype: "F32", shape: [batch, 1, side, side], data: samples.slice(i * size, (i + 1) * size) },
      timestep: { dtype: "I64", shape: [batch], data: new BigInt64Array(batch).fill(time) },
      class_labels: { dtype: "I64", shape: [batch], data: labels },
    } satisfies ReferenceStep["feeds"],
    prediction: predictions.slice(i * size, (i + 1) * size),
  }));
  return { steps };
}
