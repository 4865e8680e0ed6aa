/** What `quantize -o` writes by the output's ending or --format, and what it refuses before it begins. */
import { copyFileSync, existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { SHIPPED } from "../formats/onnx/graphs.js";
import { DIT, temporaryFolder, UNET } from "./models.js";
import { documentOf, run } from "./program.js";

const folder = temporaryFolder();
const [dit] = SHIPPED;
const CALIBRATION = fileURLToPath(new URL("../../../shared/models/dit-mnist/calibration.jsonl", import.meta.url));

describe("quantize", () => {
  it("into safetensors, a file or the original's folder again, and leaves nothing else behind", async () => {
    const [file, again] = [join(folder, "dit.safetensors"), join(folder, "again")];
    const line = ["quantize", DIT, "--dtype", "f16", "--json"];
    const whole = documentOf(await run([...line, "-o", file, "--validate", "layers"]));
    expect(whole).toMatchObject({
      ...{ ok: true, output: file, validation: { passed: true }, exported: { format: "safetensors" } },
      summary: { quantized: 28 },
    });
    const like = documentOf(await run([...line, "-o", again, "--format", "safetensors"]));
    expect(like.exported).toMatchObject({ summary: { dtype: "F16" } });
    expect(readdirSync(again)).toContain("model_index.json");
    expect(readdirSync(folder).filter((name) => name.includes(".arrowquant-"))).toEqual([]);
  });

  it.each([
    [["-o", "x.onnx", "--format", "safetensors"], /^E_CONFLICT: output .*x\.onnx is named as onnx/],
    [["-o", "x.parquet", "--dtype", "f16"], /^E_CONFLICT: --dtype has no meaning for output of format native/],
    [["-o", "x.safetensors", "--activations"], /^E_CONFLICT: --activations has no meaning .*safetensors/],
    [["-o", "x.safetensors"], /^E_USAGE: --dtype is missing/],
    [["-o", "x.onnx", "--dtype", "bf16"], /^E_USAGE: --dtype bf16 is not for ONNX/],
    [["-o", "x.onnx"], /^E_GRAPH: there is no ONNX graph beside/],
    [["-o", "x"], /^E_USAGE: output .* does not end in \.parquet/],
  ])("%j is refused before anything is written", async (flags, says) => {
    const [, name = "", ...rest] = flags;
    const ended = await run(["quantize", UNET, "-o", join(folder, name), ...rest]);
    expect(ended.stderr).toMatch(says);
    expect(ended.code).not.toBe(0);
    expect(existsSync(join(folder, name))).toBe(false);
  });

  it("does not replace what it did not write, nor what it reads", async () => {
    const foreign = join(folder, "foreign.safetensors");
    copyFileSync(join(UNET, "unet", readdirSync(join(UNET, "unet")).find((n) => n.endsWith(".safetensors"))!), foreign);
    const ended = await run(["quantize", DIT, "-o", foreign, "--dtype", "f16"]);
    expect(ended.stderr).toMatch(/^E_OUTPUT: /);
    const itself = await run(["quantize", foreign, "-o", foreign, "--dtype", "f16", "--modality", "image"]);
    expect(itself.stderr).toMatch(/^E_OUTPUT: output .* is the input/);
  });
});

describe.skipIf(dit === undefined)("an ONNX model alone", () => {
  const graph = join(folder, "alone.onnx");

  it("is calibrated by itself, quantized into a graph, and validated by running it", async () => {
    copyFileSync(dit!.path, graph);
    const output = join(folder, "alone-q4.onnx");
    const line = ["quantize", graph, "-o", output, "--json", "-b", "4", "-g", "32", "--zero-point-bits", "4"];
    const calibrated = ["--calibration", CALIBRATION, "--calibration-samples", "32"];
    const document = documentOf(await run([...line, ...calibrated, "--validate", "layers"]));
    expect(document).toMatchObject({
      ...{ ok: true, output, format: "onnx", summary: { tensors: 82, quantized: 28 } },
      exported: { summary: { matmul_nbits: 28 }, check: { not_run: null } },
      validation: { passed: true },
    });
    expect(document.layers.filter(({ method }: { method: string | null }) => method === "gptq")).toHaveLength(28);
    expect(document.exported.check.relative_error).toBeLessThan(1e-5);
    const again = await run(["quantize", output, "-o", join(folder, "again.parquet")]);
    expect(again.stderr).toMatch(/^E_PREQUANTIZED: .*MatMulNBits/);
  });

  it("goes into a folder under the names that transformers.js looks for, in float16 where asked", async () => {
    const output = join(folder, "onnx");
    const line = ["quantize", graph, "-o", output, "--format", "onnx", "--json", "--method", "rtn"];
    for (const flags of [[], ["--dtype", "f16"], ["-b", "8"]]) {
      const document = documentOf(await run([...line, ...flags]));
      expect(document).toMatchObject({ ok: true, exported: { summary: { matmul_nbits: 28 } } });
    }
    const sizes = Object.fromEntries(readdirSync(output).map((name) => [name, statSync(join(output, name)).size]));
    expect(Object.keys(sizes).sort()).toEqual(["model_q4.onnx", "model_q4f16.onnx", "model_quantized.onnx"]);
    expect(sizes["model_q4f16.onnx"]).toBeLessThan(0.8 * (sizes["model_q4.onnx"] as number));
  });
});
