/** The result of a calibration: as sections for people, as plain objects for `--json`. Pure. */
import type { CalibrateResult } from "../calibration/calibration-job.js";
import { rowCountOf, type ValueInfo } from "../calibration/statistics-info.js";
import { formatBytes, formatQuantity, formatSeconds } from "./figures.js";
import type { DocumentBody } from "./json.js";
import { listSection, type Section } from "./sections.js";

/** Lines of a list that a terminal shows. */
const SHOWN_LINES = 10;

/** Hessians that could not be taken, each value once, with the reason. */
function missingHessians({ info }: CalibrateResult): [key: string, reason: string][] {
  if (!info.settings.hessians) return [];
  return Object.entries(info.values).flatMap(([key, { hessian }]) =>
    "reason" in hessian ? [[key, hessian.reason] as [string, string]] : [],
  );
}

function hessianText({ info }: CalibrateResult): string {
  const taken = Object.values(info.values).filter(({ hessian }) => rowCountOf(hessian) > 0);
  if (taken.length === 0) return "none";
  const rows = taken.map(({ hessian }) => rowCountOf(hessian));
  const range = [Math.min(...rows), Math.max(...rows)].map((count) => count.toLocaleString("en-US"));
  return `${taken.length} of ${Object.keys(info.values).length} inputs, of ${range[0] === range[1] ? range[0] : range.join(" to ")} rows`;
}

function heldBackText({ sampleCount, heldBackCount }: CalibrateResult["info"]): string {
  const held = heldBackCount === 0 ? "none held back" : `${heldBackCount} of them held back to measure by`;
  return `${sampleCount.toLocaleString("en-US")}, ${held}`;
}

function timeText({ time }: CalibrateResult["info"]): string {
  if (time.input === null) return "not known";
  const { start, end, bins } = time;
  return `${formatQuantity(bins.length, "bin")} of ${time.input}, ${start} to ${end}`;
}

/** `some`: for a terminal; `all`: for a file, and with --verbose. */
export function calibrateSections(result: CalibrateResult, input: string, extent: "some" | "all"): Section[] {
  const { info } = result;
  const covered = Object.keys(info.layers).length;
  const list = (title: string, items: readonly string[]): Section[] => {
    const shown = extent === "all" ? items : items.slice(0, SHOWN_LINES);
    const rest = items.length - shown.length;
    return listSection(title, rest > 0 ? [...shown, `and ${rest} more`] : shown);
  };
  return [
    {
      kind: "facts",
      facts: [
        ["input", `${input} (${info.component})`],
        ["output", result.path],
        ["source", `${result.source.label}${result.cached ? " (from the cache)" : ""}`],
        ...(info.secondMomentsOnly
          ? []
          : ([
              ["samples", heldBackText(info)],
              ["time", timeText(info)],
            ] as [string, string][])),
        ["layers", `${covered} covered, ${info.unmatched.length} not`],
        ["Hessians", hessianText(result)],
        ...(result.rejected.length > 0 ? ([["rejected rows", String(result.rejected.length)]] as const) : []),
        ["size", formatBytes(result.byteLength)],
        ["time taken", formatSeconds(result.seconds)],
      ],
    },
    ...list(
      "Not covered",
      info.unmatched.map(({ tensorName, reason }) => `${tensorName}: ${reason}`),
    ),
    ...list(
      "Without Hessian",
      missingHessians(result).map(([key, reason]) => `${key}: ${reason}`),
    ),
    ...list(
      "Rejected rows",
      result.rejected.map(({ file, reason }) => `${file}, ${reason}`),
    ),
    ...(extent === "all" ? listSection("Warnings", result.warnings) : []),
  ];
}

function layerJson(name: string, key: string, value: ValueInfo) {
  return {
    name,
    value: key,
    channels: value.channels,
    columns: value.cols,
    hessian_rows: rowCountOf(value.hessian),
    hessian_reason: "reason" in value.hessian ? value.hessian.reason : null,
    held_back_rows: rowCountOf(value.heldBack),
  };
}

export function calibrateBody(result: CalibrateResult): DocumentBody {
  const { info } = result;
  const layers = Object.entries(info.layers);
  return {
    output: result.path,
    summary: {
      samples: info.sampleCount,
      held_back: info.heldBackCount,
      time_bins: info.time.bins.length,
      layers: layers.length,
      unmatched: info.unmatched.length,
      rejected: result.rejected.length,
      bytes_out: result.byteLength,
      seconds: result.seconds,
      cached: result.cached,
    },
    layers: layers.map(([name, key]) => layerJson(name, key, info.values[key] as ValueInfo)),
    warnings: result.warnings,
    source: { ...info.source, kind: result.source.kind, label: result.source.label },
    component: info.component,
    time: info.time,
    second_moments_only: info.secondMomentsOnly,
    unmatched: info.unmatched.map(({ tensorName, reason }) => ({ name: tensorName, reason })),
    rejected: result.rejected,
    fingerprint: result.fingerprint,
  };
}
