/** GGUF files as gguf-py writes them, read as gguf-py reads them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { openComponent, readExpected, readFloats } from "../formats/gguf/samples.js";
import { preparePython } from "./environment.js";
import { runPython } from "./process.js";

const { python } = await preparePython();
const folder = mkdtempSync(join(tmpdir(), "arrowquant-interop-gguf-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Not that of the samples in test/formats/gguf. */
const SEED = "20261122";

test.skipIf(python === null)("random blocks of every type are what gguf-py makes of them, to the bit", async () => {
  const names = await runPython<string[]>(python as string, "make_gguf.py", [folder, SEED]);
  const expected = readExpected(folder);
  expect(expected.size).toBeGreaterThan(40);
  for (const name of names.filter((file) => file.endsWith(".gguf"))) {
    const component = await openComponent(join(folder, name));
    const read = new Map(component.tensors.map((tensor) => [tensor.name, tensor]));
    for (const [tensorName, { shape, bits }] of expected) {
      const tensor = read.get(tensorName);
      expect(tensor?.shape).toEqual(shape);
      const found = tensor && readFloats("simd", component, tensor);
      expect(found && new Uint32Array(found.buffer), `${tensorName} of ${name}`).toEqual(bits);
    }
  }
});
