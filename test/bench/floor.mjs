/**
 * The floor of a quantization: `floor.mjs INPUT OUTPUT OUTPUT_BYTES` reads all of INPUT by position
 * through one fixed buffer and writes OUTPUT_BYTES bytes, synced as the program syncs its output.
 */
import { closeSync, fsyncSync, openSync, readSync, renameSync, statSync, writeSync } from "node:fs";

/** As large as a chunk of the native file. */
const BUFFER_BYTES = 4 * 1024 * 1024;

const [inputPath, outputPath, outputText] = process.argv.slice(2);
const outputBytes = Number(outputText);
const inputBytes = statSync(inputPath).size;
const buffer = Buffer.alloc(BUFFER_BYTES);
const input = openSync(inputPath, "r");
const output = openSync(`${outputPath}.tmp`, "w");
let read = 0;
let written = 0;
while (read < inputBytes) {
  const count = readSync(input, buffer, 0, BUFFER_BYTES, read);
  if (count === 0) throw new Error(`${inputPath} ends at ${read}, was ${inputBytes}`);
  read += count;
  // Output keeps pace with input, as it does where a row is written once it is quantized.
  const due = Math.floor((outputBytes * read) / inputBytes);
  while (written < due) {
    written += writeSync(output, buffer, 0, Math.min(BUFFER_BYTES, due - written));
  }
}
fsyncSync(output);
closeSync(output);
closeSync(input);
renameSync(`${outputPath}.tmp`, outputPath);
