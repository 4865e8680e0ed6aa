/** Sections as an HTML document that needs nothing beside itself. Pure. */
import { drawChart, escapeXml } from "./chart.js";
import type { Section, TableSection } from "./sections.js";

const STYLE = [
  "body{font:14px/1.5 system-ui,sans-serif;color:#334;max-width:75rem;margin:2rem auto;padding:0 1rem}",
  "h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}",
  ".wide{overflow-x:auto}table{border-collapse:collapse}",
  "th,td{padding:.15rem .6rem;border-bottom:1px solid #e3e5e8;text-align:left;vertical-align:top}",
  "th{color:#667;font-weight:600}.right{text-align:right;font-variant-numeric:tabular-nums}",
  "svg{max-width:100%;height:auto}",
].join("");

function cell(tag: "td" | "th", text: string, isRight: boolean): string {
  return `<${tag}${isRight ? ' class="right"' : ""}>${escapeXml(text)}</${tag}>`;
}

function tableHtml({ columns, rows, note }: TableSection): string {
  const isRight = (index: number): boolean => columns[index]?.align === "right";
  const head = columns.map(({ title }, index) => cell("th", title, isRight(index))).join("");
  const body = rows.map((cells) => `<tr>${cells.map((text, index) => cell("td", text, isRight(index))).join("")}</tr>`);
  const table = `<div class="wide"><table><thead><tr>${head}</tr></thead><tbody>${body.join("\n")}</tbody></table></div>`;
  return note === undefined ? table : `${table}<p>${escapeXml(note)}</p>`;
}

function sectionHtml(section: Section): string {
  const title = section.title === undefined ? "" : `<h2>${escapeXml(section.title)}</h2>\n`;
  switch (section.kind) {
    case "facts": {
      const rows = section.facts.map(
        ([label, value]) => `<tr>${cell("th", label, false)}${cell("td", value, false)}</tr>`,
      );
      return `${title}<table><tbody>${rows.join("\n")}</tbody></table>`;
    }
    case "table":
      return title + tableHtml(section);
    case "list":
      return `${title}<ul>${section.items.map((item) => `<li>${escapeXml(item)}</li>`).join("\n")}</ul>`;
    case "chart":
      return title + drawChart(section.chart, section.title);
  }
}

/** A whole document, ending in a newline. */
export function renderHtml(title: string, sections: readonly Section[]): string {
  return [
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width">',
    `<title>${escapeXml(title)}</title>\n<style>${STYLE}</style>\n</head>\n<body>`,
    `<h1>${escapeXml(title)}</h1>`,
    ...sections.map(sectionHtml),
    "</body>\n</html>\n",
  ].join("\n");
}
