import { describe, expect, it } from "vitest";
import { quantize } from "../../dist/cli/commands/quantize.js";
import { parseLine } from "../../dist/cli/parse.js";

const parse = (...line: string[]) => parseLine(quantize, ["m", "-o", "x.parquet", ...line]);

describe("settings of a command line", () => {
  it("are those given and no others", () => {
    expect(parse().settings).toEqual({});
    expect(parse("-b", "2", "--no-symmetric").settings).toEqual({ bit_width: "2", symmetric: false });
    expect(parse("--preserve-gain").settings).toEqual({ preserve_gain: true });
    expect(parse("--no-preserve-gain").settings).toEqual({ preserve_gain: false });
  });

  it("read --enable-x and --disable-x as one setting", () => {
    expect(parse("--enable-spatial", "--disable-time-aware").settings).toEqual({
      enable_spatial: true,
      enable_time_aware: false,
    });
  });

  it("gather repeatable flags in order, `=` in patterns included", () => {
    expect(parse("--include", "a,b", "--include", "c", "--layer-bits", "x=y=8").settings).toEqual({
      include: ["a,b", "c"],
      layer_bit_widths: ["x=y=8"],
    });
  });

  it("take the last of a flag that is given twice", () => {
    expect(parse("-b", "2", "-b", "8").settings).toEqual({ bit_width: "8" });
  });

  it("take --flag=value, and values that begin with a dash", () => {
    expect(parse("--group-size=64").settings).toEqual({ group_size: "64" });
    expect(parse("--min-accuracy=-1").settings).toEqual({ min_accuracy: "-1" });
  });

  it("leave flags of the program out", () => {
    const { flags, settings } = parse("--json", "--force", "--report", "r.md");
    expect(settings).toEqual({});
    expect(flags).toEqual({ output: "x.parquet", json: true, force: true, report: "r.md" });
  });

  it("need an output, but not for a plan", () => {
    expect(() => parseLine(quantize, ["m"])).toThrow(/--output/);
    expect(parseLine(quantize, ["m", "--dry-run"]).flags).toEqual({ "dry-run": true });
  });
});
