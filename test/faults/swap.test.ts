import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { OutputTarget } from "../../dist/io/output.js";
import { testFolder } from "./program.js";

const ROUNDS = 50;
const RIVALS = 4;

it("folders that are put in the same place at the same moment: one stands there whole, none is left beside", async () => {
  const place = testFolder();
  const path = join(place, "out");
  const options = { kind: "folder", force: true, inputs: [], isOurs: async () => true } as const;
  for (let round = 0; round < ROUNDS; round++) {
    const targets = await Promise.all(
      Array.from({ length: RIVALS }, async (_, rival) => {
        const target = await OutputTarget.prepare(path, options);
        await mkdir(target.temporaryPath);
        for (const name of ["a", "b"]) await writeFile(join(target.temporaryPath, name), `${round}.${rival}`);
        return target;
      }),
    );
    await Promise.all(targets.map((target) => target.commit()));
    expect(await readdir(place)).toEqual(["out"]);
    const [a, b] = await Promise.all(["a", "b"].map((name) => readFile(join(path, name), "utf8")));
    expect(a).toBe(b);
    expect(a).toMatch(new RegExp(`^${round}\\.`));
  }
});
