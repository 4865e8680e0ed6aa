import { expect, it } from "vitest";
// @ts-expect-error a script, so that it runs without a build of the tests
import { killRuns } from "./kill.mjs";

const ROUNDS = 10;

it.each(["file", "folder"])("a %s is the old one or the complete new one whenever the run is killed", async (kind) => {
  const tally = await killRuns(ROUNDS, kind);
  expect(tally.old + tally.new + tally.aside).toBe(ROUNDS);
  // Kills that hit nothing would prove nothing.
  expect(tally.kills).toBeGreaterThan(0);
  expect(tally.reruns).toBeGreaterThan(0);
});
