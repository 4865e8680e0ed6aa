/** Calibration data as a stream of checked samples. */
import { createHash } from "node:crypto";
import { ArrowQuantError } from "../../errors.js";
import { statOrThrow } from "../../io/read.js";
import type { Cells } from "./cell.js";
import { type ColumnMatch, matchColumns } from "./columns.js";
import { type DataFormat, openDataFile, SNIFFED_BYTES, sniff } from "./data-file.js";
import { fingerprintFiles, fingerprintWhole } from "./data-fingerprint.js";
import { download, findCached } from "./download.js";
import { listDataFiles } from "./folder.js";
import { NETWORK_LIMITS, type NetworkLimits } from "./http.js";
import { COUNTED_BYTES, openJsonlBytes } from "./jsonl.js";
import { DEFAULT_HUB, type Hub, parseAddress, type RemoteAddress } from "./location.js";
import { type Rejection, Rejections } from "./rejections.js";
import { type FetchOptions, RemoteFile } from "./remote-file.js";
import type { RowSource } from "./row-source.js";
import type { CalibrationSample, SampleSpec } from "./sample.js";
import { createCheck, type SampleCheck, type TimeRange } from "./sample-check.js";
import { RowSelection } from "./selection.js";

/** Fewer samples say nothing about ranges: a quarter is held back, the rest lies along all timesteps. */
export const MIN_SAMPLES = 16;

/** Rows by which columns are matched by shape. */
const PEEKED_ROWS = 16;

export interface CalibrationDataOptions {
  /** Samples wanted; more rows than that are not taken. */
  readonly limit: number;
  /** Fewer sound rows than this, or than `limit`, are an error. Default MIN_SAMPLES. */
  readonly minSamples?: number;
  /** Malformed rows that are passed over. Default: 100, and no more than there are sound ones. */
  readonly maxRejected?: number;
  /** Times outside are malformed; null or left out: any time is taken. */
  readonly timeRange?: TimeRange | null;
  readonly signal: AbortSignal;
  /** Where files of servers are kept; made when first needed. */
  readonly cacheFolder: string;
  readonly hub?: Hub;
  readonly network?: NetworkLimits;
}

export interface DataSource {
  readonly kind: DataFormat | "dataset" | "http" | "hub";
  readonly location: string;
  /** SHA-256 of what the samples come from, in hexadecimal. */
  readonly fingerprint: string;
}

export interface SampleStream {
  readonly source: DataSource;
  /** In the order of the graph's inputs. */
  readonly columns: readonly ColumnMatch[];
  /** null where only reading it whole would tell. */
  readonly rowCount: number | null;
  readonly selection: ReturnType<typeof RowSelection.describe>;
  /**
   * Reads the data; again with each iteration, of which there may be one at a time.
   * Throws E_CALIBRATION at the end where there are too few samples, and where too many rows are malformed;
   * E_TRUNCATED, E_CHANGED, E_LIMIT, E_DOWNLOAD; the signal's reason.
   */
  readonly samples: AsyncIterable<CalibrationSample>;
  /** Malformed rows met in the iteration under way or last ended, up to a thousand. */
  readonly rejected: readonly Rejection[];
}

/** Rows with where they are from. */
interface OpenData {
  readonly kind: DataSource["kind"];
  readonly fingerprint: string;
  readonly sources: readonly RowSource[];
}

/**
 * Opens JSON lines, Parquet, Arrow, a saved data set or a folder of such files, on this machine or on a server, and
 * matches its columns with the graph's inputs.
 *
 * @param location a path, an http(s) address (`#sha256=…` after it is checked) or `hf://datasets/OWNER/NAME/PATH`
 * @throws E_CALIBRATION where columns are missing or leave open which; E_NOT_FOUND, E_READ, E_UNKNOWN_FORMAT,
 *   E_TRUNCATED, E_LIMIT; E_DOWNLOAD, E_CRC, E_WRITE of servers' files
 */
export async function openCalibrationData(
  location: string,
  spec: SampleSpec,
  options: CalibrationDataOptions,
): Promise<SampleStream> {
  options.signal.throwIfAborted();
  const address = parseAddress(location, options.hub ?? DEFAULT_HUB);
  const { kind, fingerprint, sources } =
    address === null ? await openLocal(location, options.signal) : await openRemote(address, options);
  const shown = address?.name ?? location;
  const rowCount = sources.reduce<number | null>(
    (sum, source) => (sum === null || source.rowCount === null ? null : sum + source.rowCount),
    0,
  );
  if (rowCount === 0) {
    throw new ArrowQuantError("E_CALIBRATION", `"${shown}" has no rows`, { details: { location: shown } });
  }
  const columns = await matchFiles(spec, sources);
  const check = createCheck(spec, columns, options.timeRange ?? null);
  const rejections = new Rejections(options.maxRejected ?? null);
  const names = columns.map(({ column }) => column);
  return {
    source: { kind, location: shown, fingerprint },
    columns,
    rowCount,
    selection: RowSelection.describe(rowCount, options.limit),
    samples: { [Symbol.asyncIterator]: () => readSamples(shown, sources, rowCount, names, check, rejections, options) },
    rejected: rejections.kept,
  };
}

async function openLocal(path: string, signal: AbortSignal): Promise<OpenData> {
  const isFolder = (await statOrThrow(path)).isDirectory();
  const paths = isFolder ? await listDataFiles(path) : [path];
  const sources = [];
  for (const file of paths) {
    signal.throwIfAborted();
    sources.push(await openDataFile(file, signal));
  }
  const fingerprint = await fingerprintFiles(paths, signal);
  return { kind: isFolder ? "dataset" : (sources[0] as { format: DataFormat }).format, fingerprint, sources };
}

/**
 * A server's file is fetched whole and read from the disk. Only of JSON lines that are large, or of unknown size, no
 * more is fetched than is read, where a broken connection can be resumed and no checksum asks for the whole.
 */
async function openRemote(address: RemoteAddress, options: CalibrationDataOptions): Promise<OpenData> {
  const { cacheFolder, signal } = options;
  const fetching: FetchOptions = { limits: options.network ?? NETWORK_LIMITS, signal };
  const { kind, sha256, name } = address;
  const cached = await findCached(cacheFolder, address);
  const isKnown = cached !== null && sha256 !== null && cached.sha256 === sha256;
  const remote = isKnown ? null : await RemoteFile.open(address, fetching, sha256 === null ? cached : null);
  if (remote !== null && sha256 === null && (await isWorthStreaming(remote))) {
    const bytes = { file: name, chunks: () => remote.chunks() };
    const { etag, lastModified, byteLength, sha256: content } = remote.info;
    const fingerprint = createHash("sha256")
      .update(JSON.stringify([address.url.href, etag, lastModified, byteLength, content]))
      .digest("hex");
    return { kind, fingerprint, sources: [await openJsonlBytes(bytes, null)] };
  }
  const reopen = async (): Promise<RemoteFile> => (await RemoteFile.open(address, fetching, null)) as RemoteFile;
  const file = remote === null ? cached : await download(cacheFolder, remote, reopen);
  if (file === null) throw new ArrowQuantError("E_INTERNAL", `"${name}" is neither fetched nor kept`);
  const fingerprint = fingerprintWhole(file.byteLength, file.sha256);
  const source = await openDataFile(file.path, signal).catch((thrown) => {
    throw renameFile(thrown, file.path, name);
  });
  return { kind, fingerprint, sources: [{ ...source, file: name }] };
}

/** An error about a copy as one about what it is a copy of. */
function renameFile(thrown: unknown, path: string, name: string): unknown {
  if (!(thrown instanceof ArrowQuantError)) return thrown;
  return new ArrowQuantError(thrown.code, thrown.message.replaceAll(path, name), {
    ...(thrown.hint === undefined ? {} : { hint: thrown.hint }),
    details: { ...thrown.details, location: name },
    cause: thrown,
  });
}

async function isWorthStreaming(remote: RemoteFile): Promise<boolean> {
  const { byteLength, sendsParts } = remote.info;
  const isLarge = byteLength === null || byteLength > COUNTED_BYTES;
  if (!isLarge || !sendsParts || !remote.isResumable) return false;
  let start = Buffer.alloc(0);
  for await (const chunk of remote.chunks()) {
    start = Buffer.concat([start, chunk.subarray(0, SNIFFED_BYTES - start.length)]);
    if (start.length === SNIFFED_BYTES) break;
  }
  return sniff(start, remote.address.name) === "jsonl";
}

/** Every file of a data set must have the columns of the first. */
async function matchFiles(spec: SampleSpec, sources: readonly RowSource[]): Promise<readonly ColumnMatch[]> {
  let columns: readonly ColumnMatch[] | null = null;
  for (const source of sources) {
    if (source.rowCount === 0) continue;
    const found = await matchColumns(spec, source.columns, source.file, () => peek(source));
    columns ??= found;
    for (const [index, { input, column }] of columns.entries()) {
      const other = found[index]?.column;
      if (other === column) continue;
      const message = `"${source.file}" has column ${other} for the graph's input "${input}", files before it ${column}`;
      throw new ArrowQuantError("E_CALIBRATION", message, {
        hint: "give the files one by one, or rename the column",
        details: { file: source.file, input, column: other, before: column },
      });
    }
  }
  return columns ?? [];
}

async function peek(source: RowSource): Promise<Cells[]> {
  const rows: Cells[] = [];
  for await (const { cells } of source.rows((from) => (from < PEEKED_ROWS ? from : null), source.columns)) {
    if (typeof cells !== "string") rows.push(cells);
  }
  return rows;
}

async function* readSamples(
  location: string,
  sources: readonly RowSource[],
  rowCount: number | null,
  columns: readonly string[],
  check: SampleCheck,
  rejections: Rejections,
  { limit, minSamples = MIN_SAMPLES, signal }: CalibrationDataOptions,
): AsyncGenerator<CalibrationSample, void, undefined> {
  rejections.clear();
  const selection = new RowSelection(rowCount, limit);
  do {
    let firstRow = 0;
    for (const source of sources) {
      const [start, count] = [firstRow, source.rowCount];
      const next = (from: number): number | null => {
        const row = selection.next(start + from);
        return row === null || (count !== null && row >= start + count) ? null : row - start;
      };
      for await (const row of source.rows(next, columns)) {
        signal.throwIfAborted();
        selection.look(start + row.index);
        const sample = check(row.cells);
        if (typeof sample === "string") {
          rejections.add({ file: source.file, unit: source.unit, row: row.number, reason: sample });
          continue;
        }
        selection.take();
        yield sample;
      }
      firstRow += count ?? 0;
    }
  } while (selection.startSecondRound());
  rejections.finish(selection.takenCount);
  if (selection.takenCount < Math.min(limit, minSamples)) {
    throw tooFew(location, selection.takenCount, Math.min(limit, minSamples), rejections);
  }
}

function tooFew(location: string, found: number, needed: number, rejections: Rejections): ArrowQuantError {
  const rest = rejections.count === 0 ? "" : `; ${rejections.count} rows are malformed: ${rejections.summary()}`;
  return new ArrowQuantError("E_CALIBRATION", `"${location}" has ${found} sound rows, ${needed} are needed${rest}`, {
    hint: "give more data, or calibrate by sampling, which needs none",
    details: { location, found, needed, rejected: rejections.count },
  });
}
