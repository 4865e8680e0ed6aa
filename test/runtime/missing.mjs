/** Loads the runtime where its package is `missing` or `broken` and prints the error as JSON. */
import { register } from "node:module";

const hooks = `
export async function resolve(specifier, context, next) {
  if (specifier !== "onnxruntime-node") return next(specifier, context);
  if (${JSON.stringify(process.argv[2])} === "missing") return next("onnxruntime-node", { ...context, parentURL: "file:///nowhere/x.js" });
  return { url: "data:text/javascript,throw new Error('libstdc%2B%2B.so.6: version not found')", shortCircuit: true };
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);

const { loadRuntime } = await import("../../dist/runtime/runtime.js");
const error = await loadRuntime().then(
  () => null,
  (thrown) => thrown,
);
console.log(JSON.stringify(error));
