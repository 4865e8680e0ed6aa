/**
 * What is fuzzed. A format gives sound files to start from, mutates them, and judges what the program makes of one:
 * `check` resolves to `right` or an error's code and throws whatever must not be.
 */
import config from "./formats/config.mjs";
import gguf from "./formats/gguf.mjs";
import jobs from "./formats/jobs.mjs";
import native from "./formats/native.mjs";
import onnx from "./formats/onnx.mjs";
import safetensors from "./formats/safetensors.mjs";
import shardIndex from "./formats/shard-index.mjs";

export const FORMATS = [safetensors, shardIndex, gguf, onnx, native, config, jobs];
