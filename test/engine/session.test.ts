import { describe, expect, it } from "vitest";
import { Session } from "../../dist/engine/session.js";

const MIB = 1024 * 1024;

describe("Session", () => {
  it.each([0, 1.5, 257, Number.NaN])("takes no %d threads", (threads) => {
    expect(() => new Session({ threads })).toThrow(expect.objectContaining({ code: "E_CONFIG" }));
  });

  it("says the least cap it runs in, and runs in it", () => {
    const refuse = () => new Session({ threads: 1, memoryBytes: 10 * MIB });
    expect(refuse).toThrow(expect.objectContaining({ code: "E_MEMORY" }));
    try {
      refuse();
    } catch (thrown) {
      const { neededBytes } = (thrown as { details: { neededBytes: number } }).details;
      expect(new Session({ threads: 1, memoryBytes: neededBytes }).threads).toBe(1);
      expect(() => new Session({ threads: 1, memoryBytes: neededBytes - 1 })).toThrow();
    }
  });

  it("uses fewer threads where the cap has no room for all, and says so", () => {
    const session = new Session({ threads: 200, memoryBytes: 512 * MIB });
    expect(session.threads).toBeLessThan(200);
    expect(session.warnings[0]).toContain("200 threads");
  });

  it("refuses a plan whose tensors alone would pass the cap, with a cap that takes it", () => {
    const small = new Session({ threads: 1, memoryBytes: 256 * MIB });
    expect(() => small.assertTensorsFit(4000)).not.toThrow();
    try {
      small.assertTensorsFit(30_000);
      expect.unreachable();
    } catch (thrown) {
      expect(thrown).toMatchObject({ code: "E_MEMORY", details: { tensorCount: 30_000 } });
      const memoryBytes = (thrown as { details: { neededBytes: number } }).details.neededBytes;
      expect(() => new Session({ threads: 1, memoryBytes }).assertTensorsFit(30_000)).not.toThrow();
    }
  });
});
