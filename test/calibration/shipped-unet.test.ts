import { describe, expect, it } from "vitest";
import { useFolder } from "../quantize/source.js";
import { areModelsHere, calibrateShipped, compareShipped, openStatistics } from "./shipped.js";

const folder = useFolder();

describe.runIf(areModelsHere)("unet-mnist on its calibration rows", () => {
  it("has the shipped statistics, of convolutions too", async () => {
    // Convolutions' Hessians are compared with their definition on a small model.
    const { path, info } = await calibrateShipped("unet-mnist", folder.path("cache"), { hessians: false });
    const { worst, compared, missing } = await compareShipped("unet-mnist", await openStatistics(path));
    expect(missing).toEqual([]);
    expect(compared).toBe(65);
    expect(worst).toBeLessThan(1e-5);
    expect(Object.values(info.values).every(({ hessian }) => "reason" in hessian)).toBe(true);
  });
});
