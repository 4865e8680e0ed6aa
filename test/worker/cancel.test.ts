import { valueSymbol } from "piscina";
import { describe, expect, it } from "vitest";
import { followCancel } from "../../dist/worker/cancel.js";
import runTask from "../../dist/worker/main.js";
import { forEachSlab } from "../../dist/worker/source.js";

const newFlag = () => new Int32Array(new SharedArrayBuffer(4));

describe("a task that is cancelled", () => {
  it("ends before its next slab", () => {
    const flag = newFlag();
    followCancel(flag);
    const begun: number[] = [];
    const work = (firstRow: number) => {
      begun.push(firstRow);
      if (firstRow === 3) Atomics.store(flag, 0, 1);
      return null;
    };
    expect(() => forEachSlab(100, 3, work)).toThrow(expect.objectContaining({ code: "E_INTERRUPTED" }));
    expect(begun).toEqual([0, 3]);
  });

  it("reads nothing where it was so from the beginning, and does not cancel the next", () => {
    const noDescriptor = 2 ** 30;
    const rows = { byteOffset: 0, dtype: "U8", rows: 1, cols: 4, firstRow: 0, scales: null } as const;
    const source = { fd: noDescriptor, path: "nowhere", tensorName: "a.weight", ...rows };
    const task = { kind: "keep", source, storedDtype: "U8", slabRows: 1, output: new ArrayBuffer(4) } as const;
    const cancelled = newFlag().fill(1);
    const replies = [cancelled, newFlag()].map((flag) => {
      const moved = runTask({ ...task, cancelled: flag }) as { [valueSymbol]: unknown };
      return moved[valueSymbol];
    });
    expect(replies).toMatchObject([{ error: { code: "E_INTERRUPTED" } }, { error: { code: "E_READ" } }]);
  });
});
