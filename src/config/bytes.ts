/** Amounts of memory written as text: `512MiB`, `1GB`, `1.5 GiB`, `1048576`. */

/** Below one MiB nobody means bytes: `memory: 512` is a forgotten unit. */
export const MIN_MEMORY_BYTES = 1024 ** 2;

const BYTE_UNITS: Readonly<Record<string, number>> = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 1024,
  MIB: 1024 ** 2,
  GIB: 1024 ** 3,
  TIB: 1024 ** 4,
};

export const BYTES_TEXT: RegExp = /^(\d+(?:\.\d+)?) ?((?:[kKmMgGtT][iI]?)?[bB])?$/;

/** Bytes named by text, rounded down; the text must match `BYTES_TEXT`. */
export function parseBytes(text: string): number {
  const [, digits = "", unit = "B"] = BYTES_TEXT.exec(text) ?? [];
  return Math.floor(Number(digits) * (BYTE_UNITS[unit.toUpperCase()] ?? Number.NaN));
}
