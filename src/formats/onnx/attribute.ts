/** Attributes of nodes. Absent ones have the operator's default. */
import type { AttributeProto, NodeProto } from "./onnx-pb.js";

export function integerAttribute(node: NodeProto, name: string, fallback: number): number {
  const found = findAttribute(node, name);
  return found === undefined ? fallback : Number(found.i);
}

export function integersAttribute(node: NodeProto, name: string): number[] | null {
  return findAttribute(node, name)?.ints.map(Number) ?? null;
}

export function textAttribute(node: NodeProto, name: string, fallback: string): string {
  const found = findAttribute(node, name);
  return found === undefined ? fallback : Buffer.from(found.s).toString("utf8");
}

function findAttribute(node: NodeProto, name: string): AttributeProto | undefined {
  return node.attribute.find((attribute) => attribute.name === name);
}
