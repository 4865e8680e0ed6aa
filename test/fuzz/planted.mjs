/** A format whose every case is a fault of another kind, for the test that the supervisor sees them all. */
import assert from "node:assert/strict";

const MIB = 1024 ** 2;
const held = [];

/** Takes so much processor time. */
function compute(seconds) {
  const start = process.cpuUsage();
  for (let spent = 0; spent < seconds * 1e6; ) {
    for (let count = 0; count < 1e6; count++) held.length = 0;
    const { user, system } = process.cpuUsage(start);
    spent = user + system;
  }
}

const FAULTS = [
  function fine() {},
  function wrong() {
    assert.equal(1, 2);
  },
  function foreignError() {
    throw new TypeError("undefined is not a function");
  },
  function slow() {
    compute(1.2);
  },
  function memory() {
    Buffer.alloc(100 * MIB, 1);
  },
  function untouchedMemory() {
    held.push(new Uint8Array(300 * MIB));
  },
  function hang() {
    compute(1e6);
  },
  function unsettled() {
    return new Promise(() => {});
  },
  function crash() {
    process.abort();
  },
];

export const FAULT_NAMES = FAULTS.map(({ name }) => name);

export default {
  module: import.meta.url,
  name: "planted",
  fileName: "case.bin",
  writeSeeds: async () => [Buffer.from([0])],
  mutate: (_random, _seeds, index) => Buffer.from([index]),
  check: async (_, [fault]) => {
    await FAULTS[fault]();
    return "right";
  },
};
