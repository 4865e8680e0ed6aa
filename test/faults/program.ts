/** What the fault tests share: small runs of the real program, and folders with little room. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { documentOf, type Ended } from "../cli/program.js";

/** Settings under which a run is quick and its bytes depend on the bit width alone. */
export const QUICK = ["--method", "rtn", "--threads", "1", "--json"];

export function quantizeLine(input: string, output: string, bits: number, ...more: string[]): string[] {
  return ["quantize", input, "-o", output, "--bit-width", String(bits), ...QUICK, ...more];
}

/** What a failed run must look like from outside; more in `details` where it matters. */
export function failureOf(ended: Ended): { exitCode: number | null; code: string | undefined; hint: string | null } {
  const { error } = documentOf(ended);
  return { exitCode: ended.code, code: error?.code, hint: error?.hint ?? null };
}

/** A folder that goes when the test that asked for it is done. */
export function testFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "arrowquant-fault-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const MOUNT_PROBE = spawnSync("sh", [
  "-c",
  "d=$(mktemp -d) && mount -t tmpfs -o size=64k tmpfs $d && umount $d && rmdir $d",
]);

/** Why no file system can be mounted here; null where it can. */
export const CANNOT_MOUNT: string | null =
  MOUNT_PROBE.status === 0
    ? null
    : `no file system can be mounted here: ${String(MOUNT_PROBE.stderr ?? MOUNT_PROBE.error)}`;

/** A new file system in memory, unmounted when the test that asked for it is done. */
export function mountTmpfs(options: string): string {
  const folder = mkdtempSync(join(tmpdir(), "arrowquant-disk-"));
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", folder]);
  if (mounted.status !== 0) throw new Error(String(mounted.stderr));
  onTestFinished(() => {
    const { status, stderr } = spawnSync("umount", [folder]);
    if (status !== 0) throw new Error(String(stderr));
    rmdirSync(folder);
  });
  return folder;
}

/** Fills a file system until it has `byteCount` bytes left. */
export function leaveRoom(folder: string, byteCount: number): void {
  const { bavail, bsize } = statfsSync(folder);
  writeFileSync(join(folder, "filler"), new Uint8Array(bavail * bsize - byteCount));
}
