/** The values to take statistics of: one per distinct input of the layers, however many layers share it. */
import type { OnnxFile } from "../formats/onnx/read.js";
import type { GraphLayer } from "../graph/layers.js";
import type { GraphMatch } from "../graph/match.js";
import type { Dtype } from "../tensor/dtype.js";
import type { ValueInfo } from "./statistics-info.js";

export interface CalibrationValue {
  /** Name in the statistics file: the graph's own, with a number where it is read in several ways. */
  readonly key: string;
  /** Names in the graph: several where a layer is used several times. */
  readonly inputs: readonly string[];
  /** As the runtime hands the values out. */
  readonly dtype: Dtype;
  /** Axis of the channels; negative from the end. */
  readonly channelAxis: number;
  readonly channels: number;
  readonly conv: ValueInfo["conv"];
  readonly cols: number;
}

export interface CalibrationLayers {
  readonly values: readonly CalibrationValue[];
  /** Tensor name to key of its value. */
  readonly layers: Readonly<Record<string, string>>;
}

/** Values and layers of the tensors that have been found in the graph. */
export function listValues(file: OnnxFile, match: GraphMatch): CalibrationLayers {
  const values: CalibrationValue[] = [];
  const layers: Record<string, string> = Object.create(null);
  const byReading = new Map<string, CalibrationValue>();
  const keys = new Set<string>();
  for (const { tensorName, layers: uses } of match.matched.values()) {
    const [first] = uses;
    if (first === undefined) continue;
    const inputs = [...new Set(uses.map(({ input }) => input))].sort();
    const { channelAxis, conv, cols } = first;
    const reading = JSON.stringify([inputs, channelAxis, conv, cols]);
    let value = byReading.get(reading);
    if (value === undefined) {
      value = {
        key: freshKey(inputs[0] as string, keys),
        inputs,
        dtype: file.initializers.get(first.initializer)?.dtype ?? "F32",
        channelAxis,
        channels: channelsOf(first),
        conv: conv === null ? null : copyGeometry(conv),
        cols,
      };
      keys.add(value.key);
      byReading.set(reading, value);
      values.push(value);
    }
    layers[tensorName] = value.key;
  }
  return { values, layers };
}

function freshKey(name: string, taken: ReadonlySet<string>): string {
  if (!taken.has(name)) return name;
  let number = 2;
  while (taken.has(`${name}#${number}`)) number++;
  return `${name}#${number}`;
}

function channelsOf({ conv, cols }: GraphLayer): number {
  return conv === null ? cols : (cols / (conv.kernel[0] * conv.kernel[1])) * conv.groups;
}

function copyGeometry({ kernel, strides, pads, dilations, groups }: NonNullable<GraphLayer["conv"]>) {
  return {
    kernel: [...kernel] as [number, number],
    strides: [...strides] as [number, number],
    pads: [...pads] as [number, number, number, number],
    dilations: [...dilations] as [number, number],
    groups,
  };
}
