/** The sensitivity of a model's layers, as a job of its own: what a target would choose bits by, and the other measures. */
import { defaultCacheFolder } from "../../calibration/cache.js";
import { classifySource } from "../../calibration/source-kind.js";
import type { Statistics } from "../../calibration/statistics.js";
import type { ConfigSettings, ResolvedConfig } from "../../config/config.js";
import { ProgressMeter } from "../../engine/meter.js";
import type { ProgressListener } from "../../engine/progress.js";
import type { Session } from "../../engine/session.js";
import { raceSignal } from "../../engine/signal.js";
import { ArrowQuantError } from "../../errors.js";
import { openModel } from "../../formats/open.js";
import type { RoleNames } from "../../graph/roles.js";
import { planComponents } from "../../plan/component.js";
import type { ComponentPlan, SensitivityKind } from "../../plan/plan.js";
import type { Component, Model } from "../../tensor/info.js";
import { resolveJob } from "../job-config.js";
import { calibratedComponent, obtainStatistics } from "../obtain-statistics.js";
import { planCalibrationOf } from "../plan-calibration.js";
import { measureSensitivity } from "./measure.js";
import { type ModelRunner, openModelRunner } from "./model-runner.js";
import type { SensitivityTable } from "./table.js";

/**
 * Inputs that predictions are compared on, where calibration holds back as many. On dit-mnist with hqq plans made with
 * 16 of them err a tenth more than with 64; but every candidate is run on all of them.
 */
const RUNNER_SAMPLES = 32;

export interface SensitivityJob {
  /** A model file or folder. */
  readonly input: string;
  /**
   * Settings by their configuration keys, or an already resolved configuration: `candidate_bits` and
   * `candidate_group_sizes` say what is measured, `calibration` what with.
   */
  readonly config?: ConfigSettings | ResolvedConfig | undefined;
  /**
   * What is to be measured. By default the configuration's `sensitivity`, besides `weight` and `entropy`, which need no
   * data, and where there is calibration `output`; `model`, which takes a run of the model for every candidate, only
   * where it is asked for.
   */
  readonly kinds?: readonly SensitivityKind[] | undefined;
  /** Measure anew even where the cache has figures. */
  readonly fresh?: boolean | undefined;
  /** Names of the graph's inputs and output where they are not evident. */
  readonly roles?: RoleNames | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

export interface SensitivityResult {
  readonly input: string;
  /** One per component that is quantized. */
  readonly tables: readonly SensitivityTable[];
  readonly seconds: number;
  readonly warnings: readonly string[];
}

/**
 * Measures what each candidate costs each layer of a model.
 * @throws errors of the input and the configuration; E_CONFLICT for a kind that cannot be had; E_RUNTIME, E_GRAPH,
 *   E_SCHEDULER, E_CALIBRATION where the model cannot be run; E_NONFINITE; the signal's reason
 */
export async function measureModel(job: SensitivityJob, session: Session): Promise<SensitivityResult> {
  using place = await session.jobs.enter(job.signal);
  const { signal, abort } = place;
  const startedAt = performance.now();
  try {
    const config = withOptions(await raceSignal(resolveJob(job.config), signal));
    const { values } = config;
    const { variant, components } = values;
    const model = await raceSignal(
      openModel(job.input, {
        ...(variant === null ? {} : { variant }),
        ...(components === null ? {} : { components }),
      }),
      signal,
    );
    const calibrated = await obtainStatistics(job, model, config, session, place);
    const statistics = calibrated?.statistics ?? null;
    const kinds = chooseKinds(job, config, statistics);
    const plans = planComponents({
      components: model.components,
      pipelineClassName: model.pipelineClassName,
      config,
      calibration: statistics === null ? null : planCalibrationOf(statistics),
    });
    const tables: SensitivityTable[] = [];
    for (const plan of plans) {
      const component = model.components.find(({ name }) => name === plan.component) as Component;
      const runner = kinds.includes("model")
        ? await openRunner({ job, config, model, component, plan, session, signal, abort })
        : null;
      try {
        tables.push(
          await measureSensitivity({
            component,
            plan,
            statistics: statistics?.info.component === component.name ? statistics : null,
            candidatesOf: ({ options }) => options,
            kinds,
            modelErrors: runner,
            store: null,
            onNonFinite: values.on_nonfinite,
            cacheFolder: defaultCacheFolder(process.env),
            fresh: job.fresh,
            session,
            signal,
            abort,
            onProgress: job.onProgress,
          }),
        );
      } finally {
        await runner?.close();
      }
    }
    return {
      input: job.input,
      tables,
      seconds: (performance.now() - startedAt) / 1000,
      warnings: [
        ...session.warnings,
        ...model.warnings,
        ...(calibrated?.warnings ?? []),
        ...plans.flatMap(({ warnings }) => warnings),
        ...tables.flatMap(({ warnings }) => warnings),
      ],
    };
  } catch (thrown) {
    abort(thrown);
    throw job.signal?.aborted ? job.signal.reason : signal.reason;
  }
}

/** The configuration with a target, any that there is: with one a plan lists what each layer may have. */
function withOptions(config: ResolvedConfig): ResolvedConfig {
  const { values } = config;
  const hasTarget = [values.target_bpw, values.target_model_size_mb, values.max_error, values.mean_group_size].some(
    (target) => target !== null,
  );
  const { enable_mixed_precision } = values;
  if (hasTarget && enable_mixed_precision !== false) return config;
  return { ...config, values: { ...values, enable_mixed_precision: null, target_bpw: values.bit_width } };
}

function chooseKinds(
  { kinds }: SensitivityJob,
  { values }: ResolvedConfig,
  statistics: Statistics | null,
): readonly SensitivityKind[] {
  if (kinds !== undefined) return kinds;
  const chosen: SensitivityKind[] = ["weight", "entropy"];
  if (statistics !== null && !statistics.info.secondMomentsOnly) chosen.push("output");
  if (values.sensitivity !== null && !chosen.includes(values.sensitivity)) chosen.push(values.sensitivity);
  return chosen;
}

interface RunnerSetting {
  readonly job: Pick<SensitivityJob, "input" | "roles" | "onProgress">;
  readonly config: ResolvedConfig;
  readonly model: Model;
  readonly component: Component;
  readonly plan: ComponentPlan;
  readonly session: Session;
  readonly signal: AbortSignal;
  readonly abort: (reason: unknown) => void;
}

/**
 * Opens the model to be run with layers replaced: on what calibration holds back of its data where it has data, else on
 * what the model visits when it samples with another seed.
 * @throws E_CONFLICT of a component that is no denoiser; what `openModelRunner` does
 */
export async function openRunner(setting: RunnerSetting): Promise<ModelRunner> {
  const { job, config, model, component, plan, session, signal, abort } = setting;
  const { calibration, graph, calibration_samples, calibration_steps, seed } = config.values;
  if (component.name !== calibratedComponent(model)) {
    throw new ArrowQuantError("E_CONFLICT", `the component "${component.name}" has no model sensitivity`, {
      hint: `only the denoiser can be run: --components ${calibratedComponent(model)}`,
      details: { component: component.name },
    });
  }
  const isData = calibration !== null && (await classifySource(calibration)) === "data";
  let meter: ProgressMeter | null = null;
  let told = 0;
  return openModelRunner({
    original: job.input,
    component,
    graph,
    roles: job.roles,
    data: isData ? calibration : null,
    calibrationSamples: isData ? calibration_samples : null,
    samples: RUNNER_SAMPLES,
    steps: calibration_steps,
    seed,
    layers: plan.layers.filter(({ options }) => options.length > 0).map(({ tensor }) => tensor.name),
    session,
    signal,
    onRun: (done, total) => {
      meter ??= new ProgressMeter("sample", { layers: total, bytes: total }, job.onProgress, abort);
      meter.add(component.name, "", done - told, done - told);
      told = done;
    },
  });
}
