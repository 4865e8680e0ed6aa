/** Statistics files that lie: each is refused with a reason, none crashes and none is believed. */
import { readFile, writeFile } from "node:fs/promises";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { openStatistics, type Statistics } from "../../../dist/calibration/statistics.js";
import { INFO_KEY, type StatisticsInfo, statisticsInfo } from "../../../dist/calibration/statistics-info.js";
import { StatisticsWriter } from "../../../dist/calibration/statistics-writer.js";
import { ArrowQuantError } from "../../../dist/errors.js";
import { parseHeader } from "../../../dist/formats/safetensors/header.js";
import { useFolder } from "../../quantize/source.js";
import { buildFile } from "../safetensors/build.js";

const folder = useFolder();

const HASH = "0".repeat(64);
const GEOMETRY = { kernel: [3, 3], strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 };

const info = {
  source: { kind: "data", fingerprint: HASH },
  component: "unet",
  modelFingerprint: HASH,
  graph: { fingerprint: HASH, byteLength: 10 },
  settings: { samples: 20, hessians: true, heldBackEvery: 8 },
  sampleCount: 20,
  heldBackCount: 2,
  time: {
    input: "timestep",
    start: 0,
    end: 10,
    bins: [
      { start: 0, end: 4, value: 2, count: 9 },
      { start: 4, end: 10, value: 6, count: 9 },
    ],
  },
  secondMomentsOnly: false,
  values: {
    a: { inputs: ["a"], channels: 3, conv: null, cols: 3, hessian: { rows: 7 }, heldBack: { rows: 2 } },
    b: {
      inputs: ["b"],
      channels: 2,
      conv: GEOMETRY,
      cols: 18,
      hessian: { reason: "none" },
      heldBack: { reason: "none" },
    },
  },
  layers: { "one.weight": "a", "two.weight": "a", "conv.weight": "b" },
  unmatched: [],
};

let sound: Buffer;
beforeAll(async () => {
  const path = folder.path("sound.safetensors");
  const writer = await StatisticsWriter.create(path, statisticsInfo.parse(info));
  await writer.write("a", "max", Float32Array.of(1, 2, 3, 4, 5, 6));
  await writer.write("a", "heldback_time", Float32Array.of(1, 9));
  await writer.close();
  sound = await readFile(path);
});

/** What a test may do to JSON: put anything anywhere. */
// biome-ignore lint/suspicious/noExplicitAny: what is made of it is not to be of any type
type Anything = any;

/** The sound file with other metadata and tensors. */
function rebuild(edit: (metadata: Record<string, string>, header: Anything) => void): Buffer {
  const length = Number(sound.readBigUInt64LE(0));
  const header = JSON.parse(sound.toString("utf8", 8, 8 + length)) as Anything;
  edit(header["__metadata__"], header);
  return buildFile(JSON.stringify(header), sound.subarray(8 + length));
}

function withInfo(edit: (info: Anything) => void): Buffer {
  return rebuild((metadata) => {
    const changed = structuredClone(info);
    edit(changed);
    metadata[INFO_KEY] = JSON.stringify(changed);
  });
}

let count = 0;
async function openBytes(bytes: Buffer): Promise<Statistics> {
  const path = folder.path(`${count++}.safetensors`);
  await writeFile(path, bytes);
  return openStatistics(path);
}

it("takes the sound file", async () => {
  const statistics = await openBytes(sound);
  expect([...statistics.layerNames]).toEqual(["one.weight", "two.weight", "conv.weight"]);
  const layer = await statistics.read("two.weight");
  expect([...(layer?.max ?? [])]).toEqual([1, 2, 3, 4, 5, 6]);
  expect(layer).toMatchObject({ value: "a", cols: 3, heldBack: { rowCount: 2 } });
  expect(await statistics.read("conv.weight")).toMatchObject({ colsPerChannel: 9, hessian: null });
  expect(await statistics.read("absent")).toBeNull();
});

const BROKEN: Record<string, () => Buffer> = {
  "no statistics at all": () => rebuild((metadata) => delete metadata["arrowquant.statistics"]),
  "a version of the future": () => rebuild((metadata) => (metadata["arrowquant.statistics"] = "2")),
  "no info": () => rebuild((metadata) => delete metadata[INFO_KEY]),
  "info that is no JSON": () => rebuild((metadata) => (metadata[INFO_KEY] = "{")),
  "info of another shape": () => rebuild((metadata) => (metadata[INFO_KEY] = "[]")),
  "a fingerprint that is none": () => withInfo((i) => (i.modelFingerprint = "x")),
  "no time bins": () => withInfo((i) => (i.time.bins = [])),
  "too many time bins": () => withInfo((i) => (i.time.bins = Array(129).fill(i.time.bins[0]))),
  "a gap between time bins": () => withInfo((i) => (i.time.bins[1].start = 5)),
  "a time bin that goes backwards": () => withInfo((i) => (i.time.bins[0].end = -1)),
  "time bins that end early": () => withInfo((i) => (i.time.end = 11)),
  "another number of channels": () => withInfo((i) => (i.values.a.channels = 4)),
  "channels of 2^53": () => withInfo((i) => (i.values.a.channels = i.values.a.cols = 2 ** 53)),
  "columns that the geometry does not make": () => withInfo((i) => (i.values.b.cols = 17)),
  "a kernel of size zero": () => withInfo((i) => (i.values.b.conv.kernel = [0, 3])),
  "groups that do not divide": () => withInfo((i) => (i.values.b.conv.groups = 3)),
  "a Hessian that is not there": () => withInfo((i) => (i.values.b.hessian = { rows: 4 })),
  "a Hessian that nobody mentions": () => withInfo((i) => (i.values.a.hessian = { reason: "lost" })),
  "other held-back rows": () => withInfo((i) => (i.values.a.heldBack = { rows: 3 })),
  "a layer of no value": () => withInfo((i) => (i.layers["one.weight"] = "c")),
  "a layer of an inherited property": () => withInfo((i) => (i.layers["one.weight"] = "constructor")),
  "a value without tensors": () => withInfo((i) => (i.values.c = i.values.a)),
  "full statistics that are called second moments": () => withInfo((i) => (i.secondMomentsOnly = true)),
  "a tensor of another type": () => rebuild((_, header) => (header["a.count"].dtype = "F64")),
  "a tensor of another shape": () => rebuild((_, header) => (header["a.min"].shape = [3, 2])),
  "a tensor that belongs to nothing": () =>
    rebuild((_, header) => {
      header["a.extra"] = header["a.min"];
      delete header["a.min"];
    }),
};

describe("a file with", () => {
  it.each(Object.keys(BROKEN))("%s is refused", async (name) => {
    await expect(openBytes((BROKEN[name] as () => Buffer)())).rejects.toMatchObject({ code: "E_STATISTICS" });
  });
});

/** Puts a value at the beginning of a tensor's bytes. */
function withValue(tensor: string, write: (view: DataView) => void): Buffer {
  const bytes = Buffer.from(sound);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = parseHeader(bytes.subarray(8, 8 + length), bytes.length - 8 - length, "test");
  const at = 8 + length + (header.tensors.find(({ name }) => name === tensor)?.begin as number);
  write(new DataView(bytes.buffer, bytes.byteOffset + at));
  return bytes;
}

describe("figures that no activations have:", () => {
  it.each([
    ["a.meansq", (view: DataView) => view.setFloat32(0, -1, true)],
    ["a.meansq", (view: DataView) => view.setFloat32(0, Number.NaN, true)],
    ["a.absmax", (view: DataView) => view.setFloat32(0, Infinity, true)],
    ["a.mean", (view: DataView) => view.setFloat32(0, Number.NaN, true)],
    ["a.min", (view: DataView) => view.setFloat32(0, 2, true)],
    ["a.count", (view: DataView) => view.setBigInt64(0, -1n, true)],
    ["a.count", (view: DataView) => view.setBigInt64(0, 2n ** 62n, true)],
    ["a.histogram_exponent", (view: DataView) => view.setInt32(0, 2 ** 30, true)],
    ["a.heldback_time", (view: DataView) => view.setFloat32(0, Number.NaN, true)],
  ] as const)("%s", async (tensor, write) => {
    const statistics = await openBytes(withValue(tensor, write));
    await expect(statistics.read("one.weight")).rejects.toMatchObject({ code: "E_STATISTICS" });
    // Of other layers nothing is said.
    await expect(statistics.read("conv.weight")).resolves.not.toBeNull();
  });
});

it("a file that was replaced since it was opened is not read", async () => {
  const statistics = await openBytes(sound);
  await writeFile(statistics.path, Buffer.concat([sound]));
  await expect(statistics.read("one.weight")).rejects.toMatchObject({ code: "E_CHANGED" });
});

it("bytes that are cut off, changed or added end in an error of ours, or in a file that is sound", async () => {
  const edits = fc.record({
    cut: fc.option(fc.nat(sound.length), { nil: null }),
    flips: fc.array(fc.record({ at: fc.nat(sound.length - 1), value: fc.nat(255) }), { maxLength: 4 }),
    added: fc.nat(9),
  });
  await fc.assert(
    fc.asyncProperty(edits, async ({ cut, flips, added }) => {
      const bytes = Buffer.concat([sound.subarray(0, cut ?? sound.length), Buffer.alloc(added)]);
      for (const { at, value } of flips) if (at < bytes.length) bytes[at] = value;
      try {
        const statistics = await openBytes(bytes);
        const parsed: StatisticsInfo = statistics.info;
        expect(parsed.time.bins.length).toBeLessThanOrEqual(128);
        for (const name of statistics.layerNames) await statistics.read(name);
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(ArrowQuantError);
        expect((thrown as ArrowQuantError).exitCode).toBe(3);
      }
    }),
    { numRuns: 300 },
  );
});
