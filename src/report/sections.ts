/**
 * What a report says, before it has a form: facts, tables, lists and charts.
 * Every result is turned into sections once; text.ts draws them for terminals, markdown.ts and html.ts for files.
 */
import type { Chart } from "./chart.js";

interface FactsSection {
  readonly kind: "facts";
  readonly title?: string;
  readonly facts: readonly (readonly [label: string, value: string])[];
}

export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
  /** Gives way, in its middle, where a terminal is too narrow. At most one per table. */
  readonly elastic?: boolean;
  /** Left out where a terminal is too narrow, the highest first; always shown without. */
  readonly drop?: number;
}

export interface TableSection {
  readonly kind: "table";
  readonly title?: string;
  readonly columns: readonly Column[];
  readonly rows: readonly (readonly string[])[];
  /** One line under the table, e.g. how many rows were left out. */
  readonly note?: string;
}

export interface ListSection {
  readonly kind: "list";
  readonly title: string;
  readonly items: readonly string[];
}

/** Terminals show none. */
export interface ChartSection {
  readonly kind: "chart";
  readonly title: string;
  readonly chart: Chart;
}

export type Section = FactsSection | TableSection | ListSection | ChartSection;

/** A list, or nothing where there are no items. */
export function listSection(title: string, items: readonly string[]): ListSection[] {
  return items.length === 0 ? [] : [{ kind: "list", title, items }];
}
