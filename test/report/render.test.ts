import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { batchSections } from "../../dist/report/batch.js";
import { renderMarkdown } from "../../dist/report/markdown.js";
import { planSections } from "../../dist/report/plan.js";
import { printable, truncateMiddle } from "../../dist/report/printable.js";
import { quantizeSections } from "../../dist/report/quantize.js";
import type { Section } from "../../dist/report/sections.js";
import { renderText } from "../../dist/report/text.js";
import { validateSections, validateVerdict } from "../../dist/report/validate.js";
import {
  batchResult,
  calibratedResult,
  metricsOf,
  plan,
  quantizeResult,
  validated,
  validateResult,
} from "./results.js";

const wide = { color: false, width: Infinity };

const ALL: [string, Section[]][] = [
  ["quantize, worst", quantizeSections(quantizeResult, "worst")],
  ["quantize, all", quantizeSections(quantizeResult, "all")],
  ["quantize under calibration, worst", quantizeSections(calibratedResult, "worst")],
  ["quantize under calibration, all", quantizeSections(calibratedResult, "all")],
  ["plan", planSections(plan)],
  ["validate, worst", validateSections(validateResult, "worst")],
  ["validate, all", validateSections(validateResult, "all")],
  ["batch", batchSections(batchResult)],
];

describe("printable", () => {
  it("lets no control character through and changes nothing else", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        // biome-ignore lint/suspicious/noControlCharactersInRegex: that is the point
        expect(printable(text)).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/);
      }),
    );
    fc.assert(fc.property(fc.string({ unit: "grapheme-ascii" }), (text) => void expect(printable(text)).toBe(text)));
    expect(printable("a\u001b[31mb")).toBe("a\\x1b[31mb");
  });
});

describe("truncateMiddle", () => {
  it("keeps both ends and the width", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme-ascii" }), fc.integer({ min: 3, max: 40 }), (text, width) => {
        const cut = truncateMiddle(text, width);
        expect(cut.length).toBe(Math.min(text.length, width));
        expect(cut.startsWith(text.slice(0, 1))).toBe(true);
        expect(cut.endsWith(text.slice(-1))).toBe(true);
      }),
    );
  });
});

describe.each(ALL)("%s", (_, sections) => {
  it("is text without colour or control characters where none is asked for", () => {
    const text = renderText(null, sections, wide);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is the point
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f]/);
    expect(text.endsWith("\n")).toBe(true);
    expect(text).not.toMatch(/undefined|NaN|\[object/);
    expect(text.split("\n").every((line) => line === line.trimEnd())).toBe(true);
  });

  it("is coloured where asked, and says the same", () => {
    const colored = renderText(null, sections, { color: true, width: Infinity });
    expect(colored).toContain("\u001b[");
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are control sequences
    const plain = colored.replace(/\u001b\[\d+m/g, "").replace(/ +$/gm, "");
    expect(plain).toBe(renderText(null, sections, wide));
  });

  it("is Markdown whose tables have as many cells in every row", () => {
    const lines = renderMarkdown("Title", sections).split("\n");
    expect(lines[0]).toBe("# Title");
    const cells = (line: string): number => line.replace(/\\\|/g, "").split("|").length;
    for (let at = 1; at < lines.length; at++) {
      const [before, line] = [lines[at - 1] as string, lines[at] as string];
      if (before.startsWith("|") && line.startsWith("|")) expect(cells(line)).toBe(cells(before));
    }
  });
});

describe("tables", () => {
  it("fit the terminal by shortening names in their middle", () => {
    const name = "transformer_blocks.17.attn1.processor.to_q.some_adapter.weight";
    const sections: Section[] = [
      {
        kind: "table",
        columns: [
          { title: "layer", elastic: true },
          { title: "n", align: "right" },
        ],
        rows: [
          [name, "1"],
          ["short", "22"],
        ],
      },
    ];
    for (const width of [30, 44, 60]) {
      const lines = renderText(null, sections, { color: false, width }).trimEnd().split("\n");
      expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(width);
      expect(lines.some((line) => line.includes("transf") && line.includes("ight"))).toBe(true);
    }
    expect(renderText(null, sections, wide)).toContain(name);
  });

  it("leave out columns before names become too short, the least important first", () => {
    for (const [width, gone] of [
      [100, /largest error/],
      [72, /method/],
    ] as const) {
      const long = {
        ...quantizeResult,
        layers: quantizeResult.layers.map((one) => ({ ...one, name: `blocks.17.attn1.to_q.${one.name}.weight` })),
      };
      const lines = renderText(null, quantizeSections(long, "worst"), { color: false, width }).split("\n");
      const head = lines.find((line) => line.startsWith("  layer")) as string;
      expect(head).toContain("cosine");
      expect(head).not.toMatch(gone);
      expect(head.length).toBeLessThanOrEqual(width);
    }
  });

  it("align numbers on the right", () => {
    const lines = renderText(
      null,
      [
        {
          kind: "table",
          columns: [{ title: "a" }, { title: "b", align: "right" }],
          rows: [
            ["x", "1"],
            ["y", "100"],
          ],
        },
      ],
      wide,
    ).split("\n");
    expect(lines.slice(0, 3)).toEqual(["  a    b", "  x    1", "  y  100"]);
  });
});

describe("what the reports say", () => {
  it("raised layers name every width that was tried", () => {
    expect(renderText(null, quantizeSections(quantizeResult, "worst"), wide)).toMatch(
      /int4 \(cosine 0\.70000\) → int8/,
    );
  });

  it("settings that cannot act yet are named, in the plan and in the result", () => {
    for (const sections of [planSections(plan), quantizeSections(quantizeResult, "worst")]) {
      expect(renderText(null, sections, wide)).toContain("num_time_groups: needs calibration");
    }
  });

  it("the worst layers come first, kept ones not at all", () => {
    const text = renderText(null, quantizeSections(quantizeResult, "worst"), wide);
    const table = text.slice(text.indexOf("Worst layers"), text.indexOf("Raised"));
    expect(table.indexOf("raised")).toBeLessThan(table.indexOf("good"));
    expect(table.indexOf("good")).toBeLessThan(table.indexOf("exact"));
    expect(table).not.toContain("kept");
  });

  it("of a calibration: its source, the outputs' errors and what each layer chose from", () => {
    const worst = renderText(null, quantizeSections(calibratedResult, "worst"), wide);
    expect(worst).toMatch(/calibration +synthetic \(random inputs\), 64 samples/);
    expect(worst).toContain("Worst layers, by output error on held-back samples");
    // The cosine of weights orders them the other way round.
    expect(worst.indexOf("good")).toBeLessThan(worst.indexOf("chosen"));
    const all = renderText(null, quantizeSections(calibratedResult, "all"), wide);
    expect(all).toContain("chosen: gptq α 0.5 0.0120, gptq 0.0200, hqq 0.0450");
    for (const sections of [quantizeSections(quantizeResult, "worst"), quantizeSections(quantizeResult, "all")]) {
      const plain = renderText(null, sections, wide);
      for (const word of ["output error", "α", "time groups", "calibration  "]) expect(plain).not.toContain(word);
    }
  });

  it("of a validation every layer that failed is shown, however many", () => {
    const layers = Array.from({ length: 40 }, (_, index) => validated(`poor.${index}.`, false, metricsOf(0.5)));
    const text = renderText(null, validateSections({ ...validateResult, layers }, "worst"), wide);
    for (const { name } of layers) expect(text).toContain(name);
  });

  it("a verdict counts each kind of fault", () => {
    expect(validateVerdict(validateResult)).toBe(
      "failed: 1 layer below its threshold, 1 layer missing, 1 misshapen layer",
    );
    expect(validateVerdict({ ...validateResult, layers: [], missing: [], misshapen: [] })).toBe("passed");
  });
});
