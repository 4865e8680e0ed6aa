/** How a convolution moves its kernel over its input. https://onnx.ai/onnx/operators/onnx__Conv.html */

import { integerAttribute, integersAttribute, textAttribute } from "../formats/onnx/attribute.js";
import type { NodeProto } from "../formats/onnx/onnx-pb.js";

/** A 1-D convolution is one of height 1. */
export interface ConvGeometry {
  /** Height, width. */
  readonly kernel: readonly [number, number];
  readonly strides: readonly [number, number];
  /** Top, left, bottom, right. */
  readonly pads: readonly [number, number, number, number];
  readonly dilations: readonly [number, number];
  readonly groups: number;
}

type Pair = [number, number];

/** Far beyond any convolution; what is larger is no geometry but an accident. */
const MAX_EXTENT = 2 ** 20;

/**
 * The geometry of a Conv node whose weight has shape [out, in / groups, (height,) width]; a text where it cannot
 * be had: a 3-D convolution, attributes that make no sense, or pads that depend on the size of the input.
 */
export function readConvGeometry(node: NodeProto, shape: readonly number[]): ConvGeometry | string {
  const spatial = shape.slice(2);
  const axes = spatial.length;
  if (axes !== 1 && axes !== 2) return `it is a kernel of ${axes} spatial dimensions, supported are 1 and 2`;
  const strides = integersAttribute(node, "strides") ?? spatial.map(() => 1);
  const dilations = integersAttribute(node, "dilations") ?? spatial.map(() => 1);
  const groups = integerAttribute(node, "group", 1);
  const isSound =
    [strides, dilations].every((list) => list.length === axes && list.every((n) => isWithin(n, 1))) &&
    isWithin(groups, 1) &&
    (shape[0] as number) % groups === 0;
  if (!isSound) return "its strides, dilations or groups make no sense";
  const pads = readPads(node, spatial, strides, dilations);
  if (typeof pads === "string") return pads;
  const [begin, end] = pads;
  return {
    kernel: asPair(spatial, 1),
    strides: asPair(strides, 1),
    pads: [...asPair(begin, 0), ...asPair(end, 0)],
    dilations: asPair(dilations, 1),
    groups,
  };
}

/** Elements before and after each axis. */
function readPads(
  node: NodeProto,
  kernel: readonly number[],
  strides: readonly number[],
  dilations: readonly number[],
): readonly [number[], number[]] | string {
  const mode = textAttribute(node, "auto_pad", "NOTSET");
  if (mode === "VALID") return [kernel.map(() => 0), kernel.map(() => 0)];
  if (mode === "NOTSET" || mode === "") {
    const pads = integersAttribute(node, "pads") ?? [...kernel, ...kernel].map(() => 0);
    if (pads.length !== 2 * kernel.length || !pads.every((n) => isWithin(n, 0))) return "its pads make no sense";
    return [pads.slice(0, kernel.length), pads.slice(kernel.length)];
  }
  if (mode !== "SAME_UPPER" && mode !== "SAME_LOWER") return `its auto_pad is "${mode}"`;
  // The output is to have ceil(input / stride) elements: with a stride of 1 what the kernel takes away is added.
  if (strides.some((stride) => stride !== 1)) return `the pads of ${mode} depend on the input at a stride above 1`;
  const missing = kernel.map((size, axis) => (size - 1) * (dilations[axis] as number));
  const smaller = missing.map((count) => Math.floor(count / 2));
  const larger = missing.map((count) => Math.ceil(count / 2));
  return mode === "SAME_UPPER" ? [smaller, larger] : [larger, smaller];
}

function isWithin(value: number, least: number): boolean {
  return Number.isInteger(value) && value >= least && value <= MAX_EXTENT;
}

function asPair(list: readonly number[], height: number): Pair {
  return list.length === 1 ? [height, list[0] as number] : (list as Pair);
}
