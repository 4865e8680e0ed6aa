import { readFileSync } from "node:fs";
import fc from "fast-check";
import { afterEach, describe, expect, it, vi } from "vitest";
import { ArrowQuantError } from "../../dist/errors.js";
import { ChunkQuantizer } from "../../dist/kernels/chunk-quantizer.js";
import { ChunkRebuilder } from "../../dist/kernels/chunk-rebuilder.js";
import { Converter } from "../../dist/kernels/converter.js";
import { chooseBuild, KERNEL_BUILDS, KERNELS_VARIABLE, loadKernels } from "../../dist/kernels/load.js";
import { TILE_FIELDS } from "../../dist/kernels/tile.js";
import { findMethod, METHODS } from "../../dist/quantize/methods/index.js";
import type { MethodName } from "../../dist/tensor/layout.js";
import { specs } from "./arbitraries.js";
import { floatSource, gaussians, quantize, specOf, storedOf } from "./harness.js";
import { syntheticFactor } from "./hessians.js";

const methods = Object.keys(METHODS) as MethodName[];

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof ArrowQuantError) return error.code;
  }
  return "none";
}

describe("choosing a build", () => {
  afterEach(() => {
    vi.unstubAllEnvs();
    vi.restoreAllMocks();
  });

  it("takes the first that runs here, the forced one, and the one of the environment", () => {
    vi.stubEnv(KERNELS_VARIABLE, undefined);
    expect(chooseBuild()).toBe("simd");
    expect(chooseBuild("scalar")).toBe("scalar");
    vi.stubEnv(KERNELS_VARIABLE, "scalar");
    expect(chooseBuild()).toBe("scalar");
    expect(loadKernels().build).toBe("scalar");
    expect(loadKernels({ build: "simd" }).build).toBe("simd");
    vi.stubEnv(KERNELS_VARIABLE, "");
    expect(chooseBuild()).toBe("simd");
  });

  it("falls to scalar where SIMD does not run, unless SIMD was asked for", () => {
    vi.stubEnv(KERNELS_VARIABLE, undefined);
    vi.spyOn(WebAssembly, "validate").mockReturnValue(false);
    expect(chooseBuild()).toBe("scalar");
    expect(codeOf(() => chooseBuild("simd"))).toBe("E_KERNELS");
  });

  it("refuses a build that does not exist", () => {
    vi.stubEnv(KERNELS_VARIABLE, "avx");
    expect(codeOf(() => loadKernels())).toBe("E_KERNELS");
    expect(() => loadKernels()).toThrow(/"avx"/);
  });

  it.each(KERNEL_BUILDS)("loads the build it names: %s", (build) => {
    expect(loadKernels({ build }).exports.hasSimd()).toBe(build === "simd" ? 1 : 0);
  });
});

describe("the parameter block", () => {
  it("has the same fields in the same order on both sides", () => {
    const source = readFileSync(new URL("../../assembly/tile.ts", import.meta.url), "utf8");
    const body = source.slice(source.indexOf("class Tile"), source.indexOf("\n}"));
    const fields = [...body.matchAll(/^ {2}(\w+): (i32|usize|f32);$/gm)].map((match) => match[1]);
    expect(fields).toEqual([...TILE_FIELDS]);
  });
});

describe("the arena", () => {
  it("is told exactly what a chunk takes", () => {
    const kernels = loadKernels();
    fc.assert(
      fc.property(
        specs(methods),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 500 }),
        fc.integer({ min: 1, max: 12 }),
        fc.constantFrom("F64" as const, "F32" as const, "F16" as const, "F8_E4M3" as const),
        fc.constantFrom("none" as const, "tensor" as const, "row" as const),
        fc.option(fc.record({ rowCount: fc.integer({ min: 1, max: 20 }), quantizes: fc.boolean() })),
        (spec, rows, cols, slabRows, dtype, sourceScale, heldBack) => {
          const method = findMethod(spec.method);
          const activations = heldBack?.quantizes
            ? { bits: 8, scales: new Float32Array(20), zeroPoints: new Float32Array(20) }
            : null;
          const shape = {
            ...{ rows, cols, slabRows, dtype, sourceScale },
            ...(method.needs === "hessian" ? { hessian: syntheticFactor(cols) } : {}),
            ...(heldBack === null
              ? {}
              : {
                  heldBack: { rowCount: heldBack.rowCount, activations },
                  importance: new Float32Array(cols),
                  equalizationScales: new Float32Array(cols).fill(1),
                }),
          };
          new ChunkQuantizer(kernels, method, spec, shape);
          expect(kernels.arena.usedBytes).toBe(ChunkQuantizer.bytesNeeded(method, spec, shape));
          const converted = { cols, slabRows, sourceDtype: dtype, sourceScale, outDtype: "F16" as const };
          new Converter(kernels, converted);
          expect(kernels.arena.usedBytes).toBe(Converter.bytesNeeded(converted));
          const values = gaussians(rows * cols, 1);
          const stored = storedOf(quantize("simd", floatSource(values, cols), spec), spec, rows, cols);
          const options = { slabRows, sourceDtype: dtype, sourceScale, outDtype: "BF16" as const };
          new ChunkRebuilder(kernels, stored, options);
          expect(kernels.arena.usedBytes).toBe(ChunkRebuilder.bytesNeeded(stored, options));
        },
      ),
    );
  });

  it("stops at its cap, to the byte, and can be used again", () => {
    const spec = specOf();
    const method = findMethod("rtn");
    const shape = { rows: 64, cols: 300, slabRows: 8, dtype: "F16" as const, sourceScale: "none" as const };
    const needed = ChunkQuantizer.bytesNeeded(method, spec, shape);
    const tight = loadKernels({ maxBytes: needed });
    new ChunkQuantizer(tight, method, spec, shape);
    const short = loadKernels({ maxBytes: needed - 1 });
    expect(codeOf(() => new ChunkQuantizer(short, method, spec, shape))).toBe("E_MEMORY");
    new ChunkQuantizer(short, method, spec, { ...shape, rows: 32 });
  });

  it("grows in the middle of a thread's life without harm to what comes after", () => {
    const kernels = loadKernels();
    const before = kernels.arena.committedBytes;
    const shape = {
      rows: 1,
      cols: 200_000,
      slabRows: 1,
      dtype: "F32" as const,
      sourceScale: "none" as const,
    };
    const quantizer = new ChunkQuantizer(kernels, findMethod("rtn"), specOf(), shape);
    expect(kernels.arena.committedBytes).toBeGreaterThan(before);
    const values = gaussians(200_000, 2);
    quantizer.source(1).set(new Uint8Array(values.buffer));
    expect(quantizer.quantize(1)).toBeNull();
    expect(quantizer.outputs().data).toEqual(quantize("simd", floatSource(values, 200_000), specOf()).data);
  });

  it("cannot pass what a WebAssembly memory can be", () => {
    const { arena } = loadKernels();
    expect(codeOf(() => arena.allocate(2 ** 33))).toBe("E_MEMORY");
  });
});
