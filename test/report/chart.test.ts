import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Chart, drawChart, escapeXml } from "../../dist/report/chart.js";
import { renderHtml } from "../../dist/report/html.js";
import { renderMarkdown } from "../../dist/report/markdown.js";
import { mixedSections } from "../../dist/report/mixed.js";
import { planSections } from "../../dist/report/plan.js";
import { quantizeSections } from "../../dist/report/quantize.js";
import { renderText } from "../../dist/report/text.js";
import { plan, quantizeResult } from "./results.js";

const VOID = new Set(["meta", "!doctype"]);

/** Names of the elements, in order; throws where tags do not close or text holds markup. */
function elementsOf(markup: string): string[] {
  const names: string[] = [];
  const open: string[] = [];
  const rest = markup.replace(/<(\/?)([a-z0-9!]+)((?: [\w:-]+(?:="[^"<]*")?)*)(\/?)>/gi, (_, close, name, __, self) => {
    if (close === "/") expect(open.pop()).toBe(name);
    else {
      names.push(name);
      if (self !== "/" && !VOID.has(name)) open.push(name);
    }
    return "";
  });
  expect(open).toEqual([]);
  expect(rest).not.toMatch(/[<>]/);
  return names;
}

const number = fc.oneof(fc.double({ noNaN: true, min: 1e-12, max: 1e9 }), fc.constantFrom(0, 2, 3, 8, 1e-9, Infinity));
const bars = fc.record({
  kind: fc.constant("bars" as const),
  barAxis: fc.string(),
  pointAxis: fc.string(),
  bars: fc.array(fc.record({ label: fc.string({ unit: "binary" }), value: number, point: fc.option(number) }), {
    maxLength: 60,
  }),
});
const point = fc.record({ x: number, y: number });
const curve = fc.record({
  kind: fc.constant("curve" as const),
  xAxis: fc.string(),
  yAxis: fc.string(),
  points: fc.array(point, { maxLength: 20 }),
  chosen: fc.option(point),
});

describe("charts", () => {
  it("are well-formed SVG with a mark for everything, whatever they show", () => {
    fc.assert(
      fc.property(fc.oneof(bars, curve) as fc.Arbitrary<Chart>, fc.string(), (chart, title) => {
        const svg = drawChart(chart, title);
        const names = elementsOf(svg);
        const count = (name: string): number => names.filter((one) => one === name).length;
        expect(svg).not.toMatch(/[a-z]="[^"]*(?:NaN|undefined|Infinity|\de[+-]\d)/);
        if (chart.kind === "bars") {
          expect(count("rect")).toBe(chart.bars.length + 1);
          expect(count("circle")).toBe(chart.bars.filter((bar) => bar.point !== null).length);
        } else expect(count("circle")).toBe(chart.points.length + (chart.chosen === null ? 0 : 1));
      }),
      { numRuns: 300 },
    );
  });

  it("place a larger value higher, and on a log axis factors alike", () => {
    const values = [0.001, 0.01, 0.1];
    const svg = drawChart(
      {
        kind: "bars",
        barAxis: "bits",
        pointAxis: "error",
        bars: values.map((point, at) => ({ label: "l", value: at + 1, point })),
      },
      "t",
    );
    const heights = [...svg.matchAll(/<circle cx="[\d.]+" cy="([\d.]+)"/g)].map((match) => Number(match[1]));
    expect(heights).toHaveLength(3);
    expect(heights[0]! - heights[1]!).toBeGreaterThan(0);
    expect(heights[0]! - heights[1]!).toBeCloseTo(heights[1]! - heights[2]!, 0);
  });

  it("escape what markup would take for its own", () => {
    expect(escapeXml('<a b="c">&\'\u0000\ud800')).toBe("&#60;a b=&#34;c&#34;&#62;&#38;&#39; \ufffd");
  });
});

const mixed = {
  ...plan,
  components: plan.components.map((component) => ({
    ...component,
    mixed: {
      origin: "target 3 bits per weight",
      allocation: {
        sensitivity: "model" as const,
        bitsPerWeight: 2.99,
        meanGroupSize: 50,
        bytes: 4000,
        fileBytes: 5_000_000,
        error: 0.0004,
        lowerBound: 0.0004,
        gap: 0.0005,
        search: {
          fitness: "model" as const,
          generations: 3,
          evaluations: 40,
          seedError: 0.03,
          error: 0.025,
          history: [0.03],
        },
        front: [
          { bitsPerWeight: 2.2, error: 0.1 },
          { bitsPerWeight: 2.99, error: 0.025 },
        ],
      },
      layers: [
        { name: "a|<b>\u001b", bits: 3, groupSize: 32, parameterCount: 6400, bytes: 3000, error: 0.0003 },
        { name: "c", bits: 2, groupSize: 64, parameterCount: 640, bytes: 300, error: null },
      ],
    },
  })),
};

describe("a report on mixed precision", () => {
  const sections = quantizeSections({ ...quantizeResult, plan: mixed }, "all");

  it("is HTML that closes its tags and needs nothing else, with both charts in it", () => {
    const html = renderHtml("Title <1>", sections);
    const names = elementsOf(html.replace(/<style>[^<]*<\/style>/, ""));
    expect(names.filter((name) => name === "svg")).toHaveLength(2);
    expect(html).not.toMatch(/(?:src|href)=|<script|url\(/);
    expect(html).toContain("Size against error");
  });

  it("is Markdown with the charts as data, and text without them", () => {
    const markdown = renderMarkdown("Title", sections);
    const images = [...markdown.matchAll(/!\[[^\]]+\]\(data:image\/svg\+xml;base64,([\w+/=]+)\)/g)];
    expect(images).toHaveLength(2);
    for (const [, data] of images) expect(elementsOf(Buffer.from(data!, "base64").toString())[0]).toBe("svg");
    const text = renderText(null, planSections(mixed, "worst"), { color: false, width: Infinity });
    expect(text).toContain("40 plans measured in 3 generations: prediction error 0.0300 → 0.0250");
    expect(text).toContain("at most 5.000 MB");
    expect(text).not.toContain("svg");
  });

  it("is not there where nothing was mixed", () => {
    expect(mixedSections(plan.components, "all")).toEqual([]);
  });
});
