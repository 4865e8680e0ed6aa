/** Names as they may be shown: they come from strangers' files. Pure. */

/**
 * Text that a terminal shows and does not obey: a tensor name may hold escape sequences.
 * Control characters and direction overrides become `\xNN` / `\u{NNNN}`.
 */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not get through
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (character) => {
    const code = character.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
  });
}

/** Keeps both ends: the end of a tensor name says what it is, its start where. */
export function truncateMiddle(text: string, width: number): string {
  if (text.length <= width) return text;
  const head = Math.floor((width - 1) / 2);
  return `${text.slice(0, head)}…${text.slice(text.length - (width - 1 - head))}`;
}
