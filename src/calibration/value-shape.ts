/** How the elements of a value lie: which are channels, which positions. Pure. */
import { ArrowQuantError } from "../errors.js";
import type { CalibrationValue } from "./values.js";

/** A value seen as [outer, channels, inner]; positions are all (outer, inner). */
export interface ValueView {
  readonly outer: number;
  readonly channels: number;
  readonly inner: number;
}

/** The images of a convolution's input and of its output. */
export interface ConvImages {
  readonly count: number;
  readonly height: number;
  readonly width: number;
  readonly outHeight: number;
  readonly outWidth: number;
}

/** Throws `E_GRAPH` where the value has other channels than its layers. */
export function viewValue(value: CalibrationValue, shape: readonly number[]): ValueView {
  const axis = value.channelAxis < 0 ? shape.length + value.channelAxis : value.channelAxis;
  if (shape[axis] !== value.channels) {
    throw new ArrowQuantError(
      "E_GRAPH",
      `value "${value.key}" is [${shape}], ${value.channels} channels are expected on axis ${axis}`,
      { details: { value: value.key, shape, axis, channels: value.channels } },
    );
  }
  return {
    outer: product(shape.slice(0, axis)),
    channels: value.channels,
    inner: product(shape.slice(axis + 1)),
  };
}

/** Of a convolution's input [images, channels, (height,) width]. */
export function viewImages(
  { kernel, strides, pads, dilations }: NonNullable<CalibrationValue["conv"]>,
  shape: readonly number[],
): ConvImages {
  const width = shape.at(-1) as number;
  const height = shape.length === 3 ? 1 : (shape.at(-2) as number);
  const extent = (size: number, axis: 0 | 1) =>
    Math.floor(
      (size + pads[axis] + pads[(axis + 2) as 2 | 3] - dilations[axis] * (kernel[axis] - 1) - 1) / strides[axis],
    ) + 1;
  return { count: shape[0] as number, height, width, outHeight: extent(height, 0), outWidth: extent(width, 1) };
}

/** Rows of X that a value of that shape makes: tokens, or output positions of a convolution. */
export function countRows(value: CalibrationValue, shape: readonly number[]): number {
  if (value.conv === null) {
    const { outer, inner } = viewValue(value, shape);
    return outer * inner;
  }
  const { count, outHeight, outWidth } = viewImages(value.conv, shape);
  return count * outHeight * outWidth;
}

function product(sizes: readonly number[]): number {
  return sizes.reduce((total, size) => total * size, 1);
}
