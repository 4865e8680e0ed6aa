/** Sections as text for a terminal or a pipe: aligned columns, no lines, colour only where asked. Pure. */
import { printable, truncateMiddle } from "./printable.js";
import type { ChartSection, Column, Section, TableSection } from "./sections.js";

export interface TextStyle {
  readonly color: boolean;
  /** Columns of the terminal; Infinity where the text goes to a file or pipe. */
  readonly width: number;
}

const INDENT = "  ";
const GAP = 2;
/** An elastic column is not cut below this while there are columns to leave out instead. */
const USUAL_ELASTIC_WIDTH = 32;
/** And never below this: less does not tell two layers apart. */
const MIN_ELASTIC_WIDTH = 16;

function bold(text: string, style: TextStyle): string {
  return style.color ? `\u001b[1m${text}\u001b[22m` : text;
}

function dim(text: string, style: TextStyle): string {
  return style.color ? `\u001b[2m${text}\u001b[22m` : text;
}

function widthOf(index: number, columns: readonly Column[], rows: readonly (readonly string[])[]): number {
  return rows.reduce((widest, row) => Math.max(widest, (row[index] ?? "").length), columns[index]?.title.length ?? 0);
}

/** Leaves columns out and shortens the elastic one until the table fits, as far as it may. */
function fitTable(
  columns: readonly Column[],
  rows: readonly string[][],
  width: number,
): { columns: readonly Column[]; rows: string[][] } {
  const elastic = columns.findIndex((column) => column.elastic);
  const widths = columns.map((_, index) => widthOf(index, columns, rows));
  const others = widths.reduce((sum, own, index) => sum + (index === elastic ? 0 : own + GAP), INDENT.length);
  const room = width - others;
  const wanted = elastic < 0 ? 0 : Math.min(widths[elastic] as number, USUAL_ELASTIC_WIDTH);
  const dropped = columns.reduce(
    (highest, column, index) => ((column.drop ?? 0) > (columns[highest]?.drop ?? 0) ? index : highest),
    0,
  );
  if (room < wanted && (columns[dropped]?.drop ?? 0) > 0) {
    const kept = (_: unknown, index: number): boolean => index !== dropped;
    return fitTable(
      columns.filter(kept),
      rows.map((row) => row.filter(kept)),
      width,
    );
  }
  const most = Math.max(MIN_ELASTIC_WIDTH, room);
  return {
    columns,
    rows: rows.map((row) => row.map((cell, index) => (index === elastic ? truncateMiddle(cell, most) : cell))),
  };
}

function tableLines(table: TableSection, style: TextStyle): string[] {
  const { columns, rows } = fitTable(
    table.columns,
    table.rows.map((row) => row.map(printable)),
    style.width,
  );
  const widths = columns.map((_, index) => widthOf(index, columns, rows));
  const line = (cells: readonly string[], draw: (text: string) => string): string =>
    `${INDENT}${cells
      .map((cell, index) => {
        const width = widths[index] as number;
        return draw(columns[index]?.align === "right" ? cell.padStart(width) : cell.padEnd(width));
      })
      .join(" ".repeat(GAP))}`.trimEnd();
  return [
    line(
      columns.map(({ title }) => title),
      (text) => dim(text, style),
    ),
    ...rows.map((cells) => line(cells, (text) => text)),
    ...(table.note === undefined ? [] : [`${INDENT}${dim(printable(table.note), style)}`]),
  ];
}

function sectionLines(section: Exclude<Section, ChartSection>, style: TextStyle): string[] {
  const title = section.title === undefined ? [] : [bold(section.title, style)];
  switch (section.kind) {
    case "facts": {
      const labelWidth = section.facts.reduce((widest, [label]) => Math.max(widest, label.length), 0);
      return [
        ...title,
        ...section.facts.map(
          ([label, value]) => `${INDENT}${dim(label.padEnd(labelWidth), style)}${" ".repeat(GAP)}${printable(value)}`,
        ),
      ];
    }
    case "table":
      return [...title, ...tableLines(section, style)];
    case "list":
      return [...title, ...section.items.map((item) => `${INDENT}${printable(item)}`)];
  }
}

/** All sections, a blank line between two, ending in a newline. */
export function renderText(heading: string | null, sections: readonly Section[], style: TextStyle): string {
  const blocks = sections
    .filter((section) => section.kind !== "chart")
    .map((section) => sectionLines(section, style).join("\n"));
  const all = heading === null ? blocks : [bold(printable(heading), style), ...blocks];
  return `${all.join("\n\n")}\n`;
}
