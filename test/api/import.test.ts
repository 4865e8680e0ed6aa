import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const entry = new URL("../../dist/index.js", import.meta.url);

describe("importing the package", () => {
  it("starts nothing: no thread, no timer, no handle", () => {
    const code = `
      const before = process.getActiveResourcesInfo();
      await import(${JSON.stringify(entry.href)});
      await new Promise((resolve) => setImmediate(resolve));
      console.log(JSON.stringify([before, process.getActiveResourcesInfo()]));
    `;
    const stdout = execFileSync(process.execPath, ["--input-type=module", "--eval", code], { encoding: "utf8" });
    const [before, after] = JSON.parse(stdout);
    expect(after).toEqual(before);
  });

  it("loads nothing but modules of this package and of Node", () => {
    const seen = new Set<string>();
    const foreign: string[] = [];
    const visit = (url: URL) => {
      if (seen.has(url.href)) return;
      seen.add(url.href);
      const text = readFileSync(fileURLToPath(url), "utf8");
      for (const [, specifier = ""] of text.matchAll(
        /^(?:import|export)\b[^;]*?from "([^"]+)";|^import "([^"]+)";/gm,
      )) {
        if (specifier.startsWith(".")) visit(new URL(specifier, url));
        else if (!specifier.startsWith("node:")) foreign.push(`${specifier} from ${url.pathname}`);
      }
    };
    visit(entry);
    expect(seen.size).toBeGreaterThan(10);
    expect(foreign).toEqual([]);
  });
});
