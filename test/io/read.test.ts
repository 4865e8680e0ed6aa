import { execFileSync } from "node:child_process";
import { closeSync, openSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { openModel } from "../../dist/formats/open.js";
import { type OpenFile, readExactly, readExactlySync, readSmallFile, withFile } from "../../dist/io/read.js";
import { assertUnchanged } from "../../dist/io/unchanged.js";
import { folderMaker, weights } from "../formats/folders.ts";

const make = folderMaker();

function fileOf(bytes: Uint8Array): string {
  const folder = make({ f: bytes });
  return join(folder, "f");
}

/** A file whose reads give at most `most` bytes at a time and now and then are interrupted. */
function stingy(file: OpenFile, most: number): OpenFile {
  let calls = 0;
  const read = (target: Uint8Array, offset: number, length: number, position: number): unknown => {
    calls += 1;
    if (calls % 3 === 0) throw Object.assign(new Error("interrupted"), { code: "EINTR" });
    return file.handle.read(target, offset, Math.min(length, most), position);
  };
  return { ...file, handle: { read: async (...args: Parameters<typeof read>) => read(...args) } as never };
}

describe("positioned reads", () => {
  it("give exactly the bytes asked for, however short each read is", async () => {
    const bytes = Uint8Array.from({ length: 100 }, (_, index) => index);
    const path = fileOf(bytes);
    await fc.assert(
      fc.asyncProperty(fc.nat(100), fc.nat(100), fc.integer({ min: 1, max: 40 }), async (a, b, most) => {
        const [from, to] = a < b ? [a, b] : [b, a];
        const target = new Uint8Array(to - from);
        await withFile(path, (file) => readExactly(stingy(file, most), target, from));
        expect(target).toEqual(bytes.subarray(from, to));
      }),
      { numRuns: 50 },
    );
    const fd = openSync(path, "r");
    const target = new Uint8Array(60);
    readExactlySync(fd, path, target.subarray(10, 50), 30);
    closeSync(fd);
    expect(target).toEqual(Uint8Array.from({ length: 60 }, (_, index) => (index < 10 || index >= 50 ? 0 : index + 20)));
  });

  it("beyond the end say where the file ends", async () => {
    const path = fileOf(new Uint8Array(10));
    const fd = openSync(path, "r");
    const expected = expect.objectContaining({
      code: "E_TRUNCATED",
      message: expect.stringMatching(/ends before byte 10, bytes 8 to 12 /),
      details: { path, byteOffset: 8, byteLength: 4, end: 10 },
    });
    expect(() => readExactlySync(fd, path, new Uint8Array(4), 8)).toThrow(expected);
    closeSync(fd);
    await expect(withFile(path, (file) => readExactly(file, new Uint8Array(4), 8))).rejects.toEqual(expected);
  });

  it("that fail name path, offset and errno", async () => {
    const path = fileOf(new Uint8Array(10));
    const noDescriptor = 2 ** 30;
    expect(() => readExactlySync(noDescriptor, path, new Uint8Array(4), 6)).toThrow(
      expect.objectContaining({
        code: "E_READ",
        message: `cannot read "${path}" at byte 6: EBADF`,
        details: { path, byteOffset: 6, errno: -9, errnoName: "EBADF" },
      }),
    );
    const broken = {
      read: async () => Promise.reject(Object.assign(new Error("i/o"), { code: "EIO", errno: -5 })),
    };
    await expect(
      withFile(path, (file) => readExactly({ ...file, handle: broken as never }, new Uint8Array(1), 3)),
    ).rejects.toMatchObject({
      code: "E_READ",
      details: { errno: -5, errnoName: "EIO", byteOffset: 3 },
    });
  });

  it("of a small file stop at its limit", async () => {
    const path = fileOf(Buffer.from("text"));
    expect((await readSmallFile(path, 4)).toString()).toBe("text");
    await expect(readSmallFile(path, 3)).rejects.toMatchObject({
      code: "E_LIMIT",
      details: { byteLength: 4, maxBytes: 3 },
    });
  });
});

describe("what is no regular file", () => {
  const nothing = async (): Promise<void> => undefined;

  it("is refused without waiting for it", async () => {
    const folder = make({});
    execFileSync("mkfifo", [join(folder, "pipe.safetensors")]);
    await expect(openModel(join(folder, "pipe.safetensors"))).rejects.toMatchObject({
      code: "E_READ",
      message: expect.stringContaining("pipe"),
    });
    await expect(withFile(folder, nothing)).rejects.toMatchObject({
      code: "E_READ",
      message: expect.stringContaining("a folder"),
    });
    await expect(withFile("/dev/zero", nothing)).rejects.toMatchObject({ code: "E_READ" });
  });

  it("is not found where there is nothing", async () => {
    await expect(withFile(join(make({}), "x"), nothing)).rejects.toMatchObject({
      code: "E_NOT_FOUND",
      details: { errnoName: "ENOENT" },
    });
  });
});

describe("a file that changes between opening and the end of a run", () => {
  it.each<[string, (path: string) => void]>([
    ["grown", (path) => writeFileSync(path, "x", { flag: "a" })],
    ["touched", (path) => utimesSync(path, 1, 1)],
    [
      "replaced",
      (path) => {
        writeFileSync(`${path}.new`, weights("a"));
        renameSync(`${path}.new`, path);
      },
    ],
    ["gone", (path) => rmSync(path)],
  ])("%s is noticed", async (_, change) => {
    const path = join(make({ "x.safetensors": weights("a") }), "x.safetensors");
    const files = (await openModel(path)).components[0]?.files ?? [];
    await expect(assertUnchanged(files)).resolves.toBeUndefined();
    change(path);
    await expect(assertUnchanged(files)).rejects.toMatchObject({
      code: "E_CHANGED",
      details: { path, before: files[0]?.identity },
    });
  });
});
