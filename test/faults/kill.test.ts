import { expect, it } from "vitest";
// @ts-expect-error a script, so that it runs without a build of the tests
import { killRuns } from "./kill.mjs";

const KILLS = 10;

it.each(["file", "folder"])("a %s is the old one or the complete new one whenever the run is killed", async (kind) => {
  const tally = await killRuns(KILLS, kind);
  expect(tally.old + tally.new + tally.aside).toBe(tally.kills + tally.finished);
  // Kills that hit nothing would prove nothing.
  expect(tally.kills).toBe(KILLS);
  expect(tally.reruns).toBeGreaterThan(0);
});
