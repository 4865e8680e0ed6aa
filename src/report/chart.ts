/** Charts as self-contained SVG: no script, no font, no link. Pure. */

export interface Bar {
  readonly label: string;
  readonly value: number;
  /** Drawn as a point over the bar, on an axis of its own; null: none. */
  readonly point: number | null;
}

/** A value per name, and a second one over it. */
export interface BarChart {
  readonly kind: "bars";
  readonly barAxis: string;
  readonly pointAxis: string;
  readonly bars: readonly Bar[];
}

export interface CurvePoint {
  readonly x: number;
  readonly y: number;
}

/** One quantity against another, by rising x. */
export interface CurveChart {
  readonly kind: "curve";
  readonly xAxis: string;
  readonly yAxis: string;
  readonly points: readonly CurvePoint[];
  /** The one that was chosen; null: none. */
  readonly chosen: CurvePoint | null;
}

export type Chart = BarChart | CurveChart;

const WIDTH = 960;
const HEIGHT = 360;
/** Around the plot, for axes and their texts. */
const MARGIN = { top: 24, right: 72, bottom: 48, left: 64 } as const;
/** Below this many bars each has its name under it. */
const MAX_NAMED_BARS = 48;
const NAME_HEIGHT = 120;
/** Characters of a name under a bar: its end tells layers apart. */
const NAME_LENGTH = 22;
const COLORS = { bar: "#7aa6c2", point: "#b3452c", axis: "#667", grid: "#e3e5e8", text: "#334" } as const;

/** Text and attributes of XML; what XML cannot hold becomes a space. */
export function escapeXml(text: string): string {
  return (
    text
      .replace(/\p{Surrogate}/gu, "\ufffd")
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not get through
      .replace(/[\u0000-\u001f\u007f-\u009f\ufffe\uffff]/g, " ")
      .replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
  );
}

/** The chart as an `<svg>` element. */
export function drawChart(chart: Chart, title: string): string {
  const { body, height } = chart.kind === "bars" ? drawBars(chart) : drawCurve(chart);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" `,
    `role="img" font-family="sans-serif" font-size="12" fill="${COLORS.text}">`,
    `<title>${escapeXml(title)}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    ...body,
    "</svg>",
  ].join("");
}

interface Drawing {
  readonly body: readonly string[];
  readonly height: number;
}

/** From values to pixels. */
interface Scale {
  readonly place: (value: number) => number;
  readonly ticks: readonly number[];
  readonly format: (value: number) => string;
}

function drawBars({ bars, barAxis, pointAxis }: BarChart): Drawing {
  const isNamed = bars.length <= MAX_NAMED_BARS;
  const bottom = HEIGHT - MARGIN.bottom;
  const height = HEIGHT + (isNamed ? NAME_HEIGHT - MARGIN.bottom : 0);
  const step = (WIDTH - MARGIN.left - MARGIN.right) / Math.max(1, bars.length);
  const values = linearScale([0, ...bars.map(({ value }) => value)], bottom, MARGIN.top);
  const known = bars.flatMap(({ point }) => (point === null ? [] : [point]));
  const points = known.length === 0 ? null : valueScale(known, bottom, MARGIN.top);
  const body = [...drawLeftAxis(values, barAxis), ...(points === null ? [] : drawRightAxis(points, pointAxis))];
  for (const [index, { label, value, point }] of bars.entries()) {
    const left = MARGIN.left + index * step;
    const top = values.place(value);
    const said = `${label}: ${values.format(value)} ${barAxis}`;
    const hint = `<title>${escapeXml(point === null ? said : `${said}, ${pointAxis} ${shorten(point)}`)}</title>`;
    body.push(
      `<rect x="${px(left + step * 0.1)}" y="${px(top)}" width="${px(step * 0.8)}" height="${px(bottom - top)}" ` +
        `fill="${COLORS.bar}">${hint}</rect>`,
    );
    const middle = px(left + step / 2);
    if (point !== null && points !== null) {
      const radius = px(Math.min(4, Math.max(1.5, step / 3)));
      body.push(
        `<circle cx="${middle}" cy="${px(points.place(point))}" r="${radius}" fill="${COLORS.point}">${hint}</circle>`,
      );
    }
    if (isNamed) {
      const short = label.replace(/\.weight$/, "");
      const name = short.length > NAME_LENGTH ? `…${short.slice(-NAME_LENGTH)}` : short;
      body.push(
        `<text transform="translate(${middle} ${bottom + 10}) rotate(-60)" text-anchor="end" font-size="9">` +
          `${escapeXml(name)}</text>`,
      );
    }
  }
  if (!isNamed) body.push(drawText(WIDTH / 2, HEIGHT - 16, `${bars.length} layers, in the order of the model`));
  return { body, height };
}

function drawCurve({ points, chosen, xAxis, yAxis }: CurveChart): Drawing {
  const all = [...points, ...(chosen === null ? [] : [chosen])];
  const bottom = HEIGHT - MARGIN.bottom;
  const right = WIDTH - MARGIN.right;
  const xs = linearScale(
    all.map(({ x }) => x),
    MARGIN.left,
    right,
  );
  const ys = valueScale(
    all.map(({ y }) => y),
    bottom,
    MARGIN.top,
  );
  const at = ({ x, y }: CurvePoint): [string, string] => [px(xs.place(x)), px(ys.place(y))];
  const body = [...drawLeftAxis(ys, yAxis)];
  for (const tick of xs.ticks) body.push(drawText(xs.place(tick), bottom + 18, xs.format(tick)));
  body.push(drawText((MARGIN.left + right) / 2, HEIGHT - 10, xAxis));
  body.push(
    `<polyline fill="none" stroke="${COLORS.bar}" stroke-width="2" points="${points.map((point) => at(point).join()).join(" ")}"/>`,
  );
  const dot = (point: CurvePoint, radius: number, color: string): string => {
    const [x, y] = at(point);
    const hint = `${shorten(point.x)} ${xAxis}, ${shorten(point.y)} ${yAxis}`;
    return `<circle cx="${x}" cy="${y}" r="${radius}" fill="${color}"><title>${escapeXml(hint)}</title></circle>`;
  };
  body.push(...points.map((point) => dot(point, 3, COLORS.bar)));
  if (chosen !== null) body.push(dot(chosen, 6, COLORS.point));
  return { body, height: HEIGHT };
}

function drawLeftAxis(scale: Scale, name: string): string[] {
  const right = WIDTH - MARGIN.right;
  return [
    ...scale.ticks.map((tick) => {
      const y = px(scale.place(tick));
      return `<path d="M${MARGIN.left} ${y}H${right}" stroke="${COLORS.grid}"/>`;
    }),
    ...scale.ticks.map((tick) => drawText(MARGIN.left - 8, scale.place(tick) + 4, scale.format(tick), "end")),
    drawText(MARGIN.left - 8, 14, name, "start"),
  ];
}

function drawRightAxis(scale: Scale, name: string): string[] {
  const left = WIDTH - MARGIN.right + 8;
  return [
    ...scale.ticks.map((tick) => drawText(left, scale.place(tick) + 4, scale.format(tick), "start", COLORS.point)),
    drawText(WIDTH - 8, 14, name, "end", COLORS.point),
  ];
}

function drawText(
  x: number,
  y: number,
  text: string,
  anchor: "start" | "middle" | "end" = "middle",
  color: string = COLORS.text,
): string {
  return `<text x="${px(x)}" y="${px(y)}" text-anchor="${anchor}" fill="${color}">${escapeXml(text)}</text>`;
}

/** Logarithmic where values are positive and far apart, else linear from zero. */
function valueScale(values: readonly number[], from: number, to: number): Scale {
  const [least, most] = rangeOf(values);
  return least > 0 && most / least > 4 ? logScale(least, most, from, to) : linearScale([0, ...values], from, to);
}

function linearScale(values: readonly number[], from: number, to: number): Scale {
  const [least, most] = rangeOf(values);
  const span = most > least ? most - least : Math.max(1, Math.abs(most));
  const place = (value: number): number => from + ((value - least) / span) * (to - from);
  const unit = 10 ** Math.floor(Math.log10(span / 2));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => span / size <= 8) as number;
  const first = Math.ceil(least / step - 1e-9);
  const count = Math.floor((least + span) / step + 1e-9) - first + 1;
  return { place, ticks: Array.from({ length: count }, (_, index) => (first + index) * step), format: shorten };
}

function logScale(least: number, most: number, from: number, to: number): Scale {
  const [low, high] = [Math.floor(Math.log10(least)), Math.ceil(Math.log10(most))];
  const place = (value: number): number => from + ((Math.log10(value) - low) / (high - low)) * (to - from);
  return { place, ticks: Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index)), format: shorten };
}

function rangeOf(values: readonly number[]): [number, number] {
  let [least, most] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    least = Math.min(least, value);
    most = Math.max(most, value);
  }
  return least > most ? [0, 1] : [least, most];
}

/** Three digits, without zeros that say nothing. */
function shorten(value: number): string {
  return String(Number(value.toPrecision(3)));
}

/** A tenth of a pixel is finer than any screen. */
function px(value: number): string {
  return Number.isFinite(value) ? String(Math.round(value * 10) / 10) : "0";
}
