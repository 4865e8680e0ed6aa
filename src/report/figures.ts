/** Figures as people read them: rounded where more digits say nothing, never rounded to a lie. Pure. */

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;
const COUNT_UNITS = ["", " K", " M", " B", " T"] as const;

/** Divides by `base` until the value fits its unit; rounding that reaches the next unit moves on to it. */
function scale(value: number, base: number, units: readonly string[]): string {
  let unit = 0;
  let scaled = value;
  while (unit < units.length - 1 && Number(threeDigits(scaled, unit)) >= base) {
    scaled /= base;
    unit++;
  }
  return `${threeDigits(scaled, unit)}${units[unit]}`;
}

/** Whole numbers in the first unit; else at least three digits. */
function threeDigits(value: number, unit: number): string {
  if (unit === 0) return value.toFixed(0);
  return value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
}

/** 20.6 MiB */
export function formatBytes(bytes: number): string {
  return scale(
    bytes,
    1024,
    BYTE_UNITS.map((unit) => ` ${unit}`),
  );
}

/** 5.41 M */
export function formatCount(count: number): string {
  return scale(count, 1000, COUNT_UNITS);
}

/** 0:07, 12:30, 2:05:00 */
export function formatClock(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const [hours, minutes, rest] = parts as [number, number, number];
  const tail = `${String(minutes).padStart(hours > 0 ? 2 : 1, "0")}:${String(rest).padStart(2, "0")}`;
  return hours > 0 ? `${hours}:${tail}` : tail;
}

/** 0.42 s, 12.3 s, 2:05 */
export function formatSeconds(seconds: number): string {
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  return formatClock(seconds);
}

/** Five decimals; a value below 1 never reads as 1. */
export function formatCosine(cosine: number): string {
  const text = cosine.toFixed(5);
  return cosine < 1 && text === "1.00000" ? ">0.99999" : text;
}

/** 23.4; no error at all: ∞ */
export function formatDecibels(decibels: number): string {
  if (decibels === Infinity) return "∞";
  if (decibels === -Infinity) return "−∞";
  return decibels.toFixed(1);
}

/** Three significant digits, for errors and gains of any size. */
export function formatSignificant(value: number): string {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : Number.isNaN(value) ? "–" : "−∞";
  const size = Math.abs(value);
  if (size < 0.001 || size >= 100_000) return value.toExponential(2);
  return value.toPrecision(3);
}

/** Four decimals: gains stand near 1 and their distance from it is what matters. */
export function formatGain(gain: number): string {
  return Number.isFinite(gain) ? gain.toFixed(4) : formatSignificant(gain);
}

/** 6.61× */
export function formatRatio(ratio: number): string {
  return Number.isFinite(ratio) ? `${ratio.toFixed(2)}×` : "–";
}

/** 4.48; nothing quantized: – */
export function formatBitsPerWeight(bits: number | null): string {
  return bits === null ? "–" : bits.toFixed(2);
}

/** 256×1024; a scalar: scalar */
export function formatShape(shape: readonly number[]): string {
  return shape.length === 0 ? "scalar" : shape.join("×");
}

/** 1 layer, 2 layers */
export function formatQuantity(count: number, noun: string): string {
  return `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;
}
