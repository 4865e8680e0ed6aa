/** The examples of the documentation: the compiler takes them as they stand, and they run. */
import { execFile } from "node:child_process";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import ts from "typescript";
import { beforeAll, describe, expect, it } from "vitest";
import { useFolder } from "../quantize/source.js";
import { dit, unet } from "./models.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const DOCUMENTS = ["README.md", "docs/api/README.md"];

/** Blocks of TypeScript that use the package, by document and line. */
const examples = (
  await Promise.all(
    DOCUMENTS.map(async (document) => {
      const text = await readFile(join(root, document), "utf8");
      return [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => ({
        name: `${document}:${text.slice(0, match.index).split("\n").length + 1}`,
        code: match[1] as string,
      }));
    }),
  )
)
  .flat()
  .filter(({ code }) => code.includes('from "arrowquant"'))
  .map((example, index) => ({ ...example, file: `example-${index}.ts` }));

const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  lib: ["lib.es2023.d.ts", "lib.esnext.disposable.d.ts"],
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  strict: true,
  exactOptionalPropertyTypes: true,
  noUnusedLocals: true,
  types: ["node"],
};

const folder = useFolder();
beforeAll(async () => {
  // A program's folder with the package installed, and the models that the examples name.
  await mkdir(folder.path("node_modules"));
  await symlink(root, folder.path("node_modules", "arrowquant"));
  await symlink(join(root, "node_modules", "@types"), folder.path("node_modules", "@types"));
  await symlink(unet, folder.path("unet-mnist"));
  await symlink(dit, folder.path("dit-mnist"));
  await writeFile(folder.path("package.json"), JSON.stringify({ type: "module" }));
  for (const { file, code } of examples) await writeFile(folder.path(file), code);
});

describe("examples", () => {
  it("are there", () => {
    expect(examples.length).toBeGreaterThanOrEqual(5);
  });

  it("pass the compiler at its strictest, with the package's own types", () => {
    const program = ts.createProgram(
      examples.map(({ file }) => folder.path(file)),
      OPTIONS,
    );
    const problems = ts.getPreEmitDiagnostics(program).map(({ file, messageText }) => {
      const example = examples.find((each) => file?.fileName.endsWith(each.file));
      return `${example?.name ?? file?.fileName}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`;
    });
    expect(problems).toEqual([]);
  });

  it.each(examples)("$name runs", async ({ file, code }) => {
    const script = folder.path(file.replace(/\.ts$/, ".js"));
    // A lone text has no package.json to tell that it is an ES module.
    const compilerOptions = { target: OPTIONS.target, module: ts.ModuleKind.ESNext };
    await writeFile(script, ts.transpileModule(code, { compilerOptions } as ts.TranspileOptions).outputText);
    const { stderr } = await promisify(execFile)(process.execPath, [script], { cwd: dirname(script) });
    expect(stderr).toBe("");
  });
});
