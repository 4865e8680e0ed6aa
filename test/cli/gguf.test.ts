/** GGUF on the command line. */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DIT, temporaryFolder, UNET } from "./models.js";
import { documentOf, run } from "./program.js";

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);

describe("quantize to GGUF", () => {
  it("writes, validates and reports; export and validate know the file too", async () => {
    const output = at("unet.gguf");
    const report = at("report.md");
    const flags = ["--type", "f16", "--comfy", "--validate", "layers", "--report", report];
    const ended = await run(["quantize", UNET, "-o", output, ...flags, "--json"]);
    expect(ended.code).toBe(0);
    const document = documentOf(ended);
    expect(document).toMatchObject({
      ok: true,
      command: "quantize",
      output,
      files: [output],
      gguf: { type: "f16", architecture: "sd1" },
      validation: { passed: true },
    });
    expect(existsSync(report)).toBe(true);
    const validated = await run(["validate", UNET, output, "--json"]);
    expect(validated.code).toBe(0);
    expect(documentOf(validated).layers).toHaveLength((document["layers"] as unknown[]).length);
    // Another model's file is none of this one's.
    const other = await run(["validate", DIT, output, "--json"]);
    expect(other.code).toBe(4);
    expect(documentOf(other).error).toMatchObject({ code: "E_MISMATCH" });
    const text = await run(["inspect", output]);
    expect(text.stdout).toContain("sd1");
  });

  it("--dry-run says each tensor's type and why, from headers alone", async () => {
    const rules = ["--tensor-type", "to_v=q6_k", "--tensor-type", "attentions.*to_=Q5_0"];
    const ended = await run(["quantize", UNET, "--type", "q4_k", ...rules, "--dry-run", "--json"]);
    expect(ended.code).toBe(0);
    const {
      layers,
      dry_run: dryRun,
      output,
    } = documentOf(ended) as unknown as {
      layers: { name: string; quant_type: string; reason: string; vetoed: boolean }[];
      dry_run: boolean;
      output: null;
    };
    expect({ dryRun, output }).toEqual({ dryRun: true, output: null });
    const of = (name: string) => layers.find((layer) => layer.name === name);
    expect(of("mid_block.attentions.0.to_q.weight")).toMatchObject({ quant_type: "q5_0", vetoed: false });
    // Rows of 128 are no whole super-blocks.
    expect(of("mid_block.attentions.0.to_v.weight")).toMatchObject({ quant_type: "q8_0", vetoed: true });
    expect(of("mid_block.resnets.0.conv1.weight")).toMatchObject({ quant_type: "f16", vetoed: true });
    expect(of("conv_in.weight")?.reason).toContain("keep");
  });

  it.each([
    [["-o", "x.gguf"], 2, "E_USAGE", /--type is missing/],
    [["-o", "x.gguf", "--type", "q9_x"], 2, "E_USAGE", /q9_x/],
    [["-o", "x.gguf", "--type", "q4_k", "-b", "4"], 2, "E_CONFLICT", /bit_width/],
    [["-o", "x.gguf", "--type", "q4_k", "--resume"], 2, "E_CONFLICT", /--resume/],
    [["-o", "x.gguf", "--type", "q4_k", "--tensor-type", "to_q"], 2, "E_USAGE", /PATTERN=TYPE/],
    [["-o", "x.gguf", "--type", "q4_k", "--tensor-type", "nowhere=f16"], 2, "E_PATTERN", /matches none/],
    [["-o", "x.gguf", "--type", "q4_k", "--split-max-size", "much"], 2, "E_USAGE", /no amount of bytes/],
    [["-o", "x.parquet", "--type", "q4_k"], 2, "E_CONFLICT", /--type has no meaning/],
  ] as const)("refuses %j", async (flags, exitCode, code, message) => {
    const given = flags.map((flag) => (flag.startsWith("x.") ? at(flag) : flag));
    const ended = await run(["quantize", UNET, ...given, "--json"]);
    expect(ended.code).toBe(exitCode);
    expect(documentOf(ended).error).toMatchObject({ code, message: expect.stringMatching(message) });
    expect(existsSync(at("x.gguf"))).toBe(false);
  });

  it("leaves alone what it did not write", async () => {
    writeFileSync(at("mine.gguf"), "GGUF of somebody else");
    const args = ["quantize", UNET, "-o", at("mine.gguf"), "--type", "f32"];
    expect(documentOf(await run([...args, "--json"])).error).toMatchObject({ code: "E_OUTPUT" });
    expect((await run([...args, "--force"])).code).toBe(0);
    // Its own output it replaces.
    expect((await run(args)).code).toBe(0);
  });
});

describe("export to GGUF", () => {
  it("asks for --allow-requantize, and tells what it cost", async () => {
    const native = at("unet.parquet");
    expect((await run(["quantize", UNET, "-o", native])).code).toBe(0);
    const args = ["export", native, "-o", at("again.gguf"), "--type", "f16", "--json"];
    const refused = await run(args);
    expect(refused.code).toBe(3);
    expect(documentOf(refused).error).toMatchObject({ code: "E_PREQUANTIZED" });
    const done = await run([...args, "--allow-requantize"]);
    expect(done.code).toBe(0);
    expect(documentOf(done).warnings.join()).toMatch(/requantized: a relative RMSE of .* on top of its own/);
    expect((await run(["validate", UNET, at("again.gguf")])).code).toBe(0);
  });
});
