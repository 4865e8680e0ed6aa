/** The two kernel builds: choosing, compiling and instantiating one. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { ArrowQuantError } from "../errors.js";
import { Arena } from "./arena.js";
import type { KernelExports } from "./exports.js";
import { TILE_BYTES } from "./tile.js";
import { type KernelModule, webAssembly } from "./webassembly.js";

/** Builds in order of preference. Both give the same bits. */
export const KERNEL_BUILDS = ["simd", "scalar"] as const;
export type KernelBuild = (typeof KERNEL_BUILDS)[number];

/** Forces a build. */
export const KERNELS_VARIABLE = "ARROWQUANT_KERNELS";

/** One instance: exports and the memory they work on. One call at a time. */
export interface Kernels {
  readonly build: KernelBuild;
  readonly exports: KernelExports;
  readonly arena: Arena;
}

/**
 * The smallest module with a v128 instruction: () -> v128, `i32.const 0; i8x16.splat`.
 * https://webassembly.github.io/spec/core/binary/instructions.html#vector-instructions
 */
const SIMD_PROBE = new Uint8Array([
  0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7b, 0x03, 0x02, 0x01, 0x00,
  0x0a, 0x08, 0x01, 0x06, 0x00, 0x41, 0x00, 0xfd, 0x0f, 0x0b,
]);

const CAN_RUN: Readonly<Record<KernelBuild, () => boolean>> = {
  simd: () => webAssembly.validate(SIMD_PROBE),
  scalar: () => true,
};

/** Compiled once per thread. */
const modules = new Map<KernelBuild, KernelModule>();

/**
 * The build to use: `forced`, else `ARROWQUANT_KERNELS`, else the first that runs here.
 * Throws `E_KERNELS` where a forced one does not exist or cannot run.
 */
export function chooseBuild(forced: string | undefined = process.env[KERNELS_VARIABLE]): KernelBuild {
  if (forced === undefined || forced === "") {
    return KERNEL_BUILDS.find((build) => CAN_RUN[build]()) as KernelBuild;
  }
  const build = KERNEL_BUILDS.find((name) => name === forced);
  if (build === undefined) {
    throw new ArrowQuantError("E_KERNELS", `there is no kernel build "${forced}"`, {
      hint: `${KERNELS_VARIABLE} is one of ${KERNEL_BUILDS.join(", ")}`,
      details: { forced, builds: KERNEL_BUILDS },
    });
  }
  if (!CAN_RUN[build]()) {
    throw new ArrowQuantError("E_KERNELS", `kernel build "${build}" was asked for and cannot run here`, {
      hint: `unset ${KERNELS_VARIABLE}`,
      details: { forced },
    });
  }
  return build;
}

function compile(build: KernelBuild): KernelModule {
  const compiled = modules.get(build);
  if (compiled !== undefined) return compiled;
  const path = fileURLToPath(new URL(`../../dist/kernels/${build}.wasm`, import.meta.url));
  let module: KernelModule;
  try {
    module = new webAssembly.Module(readFileSync(path));
  } catch (cause) {
    throw new ArrowQuantError("E_KERNELS", `kernel build "${build}" cannot be loaded from ${path}`, {
      cause,
      hint: "run npm run build, or reinstall",
      details: { build, path },
    });
  }
  modules.set(build, module);
  return module;
}

export interface KernelOptions {
  /** Forces a build, before `ARROWQUANT_KERNELS`. */
  readonly build?: KernelBuild;
  /** Most bytes one chunk may take of the instance's memory. */
  readonly maxBytes?: number;
}

/** A new instance with a memory of its own; throws `E_KERNELS`. */
export function loadKernels(options: KernelOptions = {}): Kernels {
  const build = chooseBuild(options.build);
  const exports = new webAssembly.Instance(compile(build), {}).exports as KernelExports;
  if (exports.tileBytes() !== TILE_BYTES) {
    throw new ArrowQuantError(
      "E_KERNELS",
      `kernel build "${build}" has parameter blocks of ${exports.tileBytes()} bytes, not ${TILE_BYTES}`,
      {
        hint: "run npm run build",
        details: { build, kernelBytes: exports.tileBytes(), tileBytes: TILE_BYTES },
      },
    );
  }
  return {
    build,
    exports,
    arena: new Arena(exports.memory, exports.heapBase(), options.maxBytes ?? Infinity),
  };
}
