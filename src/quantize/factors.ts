/**
 * Factors of Hessians on disk: each is worked out once by a worker and read by every worker that quantizes rows of a
 * layer with it. Layers of one input (query, key, value) share theirs, so they are counted and removed with the last.
 */
import { rm } from "node:fs/promises";
import type { Session } from "../engine/session.js";
import type { GptqSettings } from "../plan/plan.js";
import type { HessianFactorPlace } from "../worker/messages.js";
import type { LayerCalibration } from "./layer-calibration.js";

/** A factor on disk, or null where the Hessian is not positive definite even damped. */
export type Factor = HessianFactorPlace | null;

export class Factors {
  readonly #session: Session;
  readonly #signal: AbortSignal;
  readonly #settings: GptqSettings;
  readonly #newPath: () => string;
  /** By name of the input; only those without equalization are shared. */
  readonly #shared = new Map<string, Promise<Factor>>();
  readonly #paths = new Set<string>();
  readonly #usersLeft = new Map<string, number>();

  /** @param users name of the input of each layer that will `leave`, once per layer */
  constructor(
    session: Session,
    signal: AbortSignal,
    settings: GptqSettings,
    newPath: () => string,
    users: readonly string[],
  ) {
    this.#session = session;
    this.#signal = signal;
    this.#settings = settings;
    this.#newPath = newPath;
    for (const value of users) this.#usersLeft.set(value, (this.#usersLeft.get(value) ?? 0) + 1);
  }

  /** The factor of the layer's Hessian as it is, shared by layers of the same input. */
  shared(calibration: LayerCalibration, cols: number): Promise<Factor> {
    const { value } = calibration;
    const known = this.#shared.get(value);
    if (known !== undefined) return known;
    const factor = this.make(calibration, cols, null);
    factor.catch(() => undefined);
    this.#shared.set(value, factor);
    return factor;
  }

  /** A factor of the layer's own, its input divided by `scales`; `discard` it after use. */
  async make(calibration: LayerCalibration, cols: number, scales: Float32Array | null): Promise<Factor> {
    const { hessian } = calibration;
    if (hessian === null) return null;
    const path = this.#newPath();
    this.#paths.add(path);
    const reply = await this.#session.run(
      {
        kind: "factor",
        hessian,
        cols,
        equalizationScales: scales,
        ...this.#settings,
        outputPath: path,
      },
      [],
      this.#signal,
    );
    if (reply.isPositiveDefinite) return { path, byteOffset: 0, order: reply.order, deadColumns: reply.deadColumns };
    await this.discard({ path });
    return null;
  }

  async discard(factor: { readonly path: string } | null): Promise<void> {
    if (factor === null) return;
    this.#paths.delete(factor.path);
    await rm(factor.path, { force: true });
  }

  /** Called once per layer when it is written. @param value name of its input; nothing where statistics lack it */
  async leave(value: string | undefined): Promise<void> {
    if (value === undefined) return;
    const left = (this.#usersLeft.get(value) ?? 1) - 1;
    this.#usersLeft.set(value, left);
    const shared = this.#shared.get(value);
    if (left > 0 || shared === undefined) return;
    this.#shared.delete(value);
    await this.discard(await shared.catch(() => null));
  }

  /** Removes whatever is left. */
  async removeAll(): Promise<void> {
    await Promise.allSettled(this.#shared.values());
    for (const path of this.#paths) await rm(path, { force: true });
    this.#paths.clear();
  }
}
