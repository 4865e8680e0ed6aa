/** Sections as a Markdown document. Pure. */
import { drawChart } from "./chart.js";
import type { Section, TableSection } from "./sections.js";

/** Text that Markdown shows as it is: names may hold any character, control characters among them. */
function escapeMarkdown(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not get through
      .replace(/[\u0000-\u001f\u007f-\u009f]/g, " ")
      .replace(/[\\`*_{}[\]<>#|~]/g, "\\$&")
  );
}

function tableLines(table: TableSection): string[] {
  const row = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [
    row(table.columns.map((column) => escapeMarkdown(column.title))),
    row(table.columns.map((column) => (column.align === "right" ? "---:" : "---"))),
    ...table.rows.map((cells) => row(cells.map(escapeMarkdown))),
    ...(table.note === undefined ? [] : ["", escapeMarkdown(table.note)]),
  ];
}

function sectionLines(section: Section): string[] {
  const title = section.title === undefined ? [] : [`## ${escapeMarkdown(section.title)}`, ""];
  switch (section.kind) {
    case "facts":
      return [
        ...title,
        "| | |",
        "| --- | --- |",
        ...section.facts.map(([label, value]) => `| ${escapeMarkdown(label)} | ${escapeMarkdown(value)} |`),
      ];
    case "table":
      return [...title, ...tableLines(section)];
    case "list":
      return [...title, ...section.items.map((item) => `- ${escapeMarkdown(item)}`)];
    case "chart": {
      // In the file itself: a report is moved and mailed without what lies beside it.
      const svg = Buffer.from(drawChart(section.chart, section.title)).toString("base64");
      return [...title, `![${escapeMarkdown(section.title)}](data:image/svg+xml;base64,${svg})`];
    }
  }
}

/** A whole document, ending in a newline. */
export function renderMarkdown(title: string, sections: readonly Section[]): string {
  const lines = [`# ${escapeMarkdown(title)}`, ...sections.flatMap((section) => ["", ...sectionLines(section)])];
  return `${lines.join("\n")}\n`;
}
