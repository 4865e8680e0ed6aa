/** The table of schedulers, by the class names of diffusers. */
import { ArrowQuantError } from "../errors.js";
import {
  consistencyConfig,
  ddimConfig,
  ddpmConfig,
  dpmConfig,
  eulerAncestralConfig,
  eulerConfig,
  flowConfig,
  heunConfig,
  lcmConfig,
  lmsConfig,
  MAX_TRAIN_TIMESTEPS,
  pndmConfig,
  readConfig,
} from "./config.js";
import { createConsistency, createLcm } from "./consistency.js";
import { createDdim, createDdpm } from "./ddim.js";
import { createEuler, createEulerAncestral, createEulerOfDpm } from "./euler.js";
import { createFlow, createFlowOfDpm } from "./flow.js";
import { createTableScheduler, type Scheduler, type SchedulerOptions, type SchedulerTable } from "./scheduler.js";

interface SchedulerKind {
  /** Whether another class's formula runs, over this class's noise schedule and timesteps. */
  readonly isSubstituted: boolean;
  readonly create: (config: unknown, steps: number, options: SchedulerOptions, className: string) => SchedulerTable;
}

const euler: SchedulerKind["create"] = (config, steps, _, name) =>
  createEuler(readConfig(eulerConfig, config, name), steps);
const heun: SchedulerKind["create"] = (config, steps, _, name) =>
  createEuler(readConfig(heunConfig, config, name), steps);
const flow: SchedulerKind["create"] = (config, steps, options, name) =>
  createFlow(readConfig(flowConfig, config, name), steps, options);
const dpm: SchedulerKind["create"] = (config, steps, options, name) => {
  const read = readConfig(dpmConfig, config, name);
  const { prediction_type: type } = read;
  return type === "flow_prediction"
    ? createFlowOfDpm(read, steps, options)
    : createEulerOfDpm({ ...read, prediction_type: type }, steps);
};

export const SCHEDULERS: Readonly<Record<string, SchedulerKind>> = {
  DDIMScheduler: {
    isSubstituted: false,
    create: (config, steps, { eta = 0 }, name) => createDdim(readConfig(ddimConfig, config, name), steps, eta),
  },
  DDPMScheduler: {
    isSubstituted: false,
    create: (config, steps, _, name) => createDdpm(readConfig(ddpmConfig, config, name), steps),
  },
  EulerDiscreteScheduler: { isSubstituted: false, create: euler },
  EulerAncestralDiscreteScheduler: {
    isSubstituted: false,
    create: (config, steps, _, name) => createEulerAncestral(readConfig(eulerAncestralConfig, config, name), steps),
  },
  FlowMatchEulerDiscreteScheduler: { isSubstituted: false, create: flow },
  LCMScheduler: {
    isSubstituted: false,
    create: (config, steps, _, name) => createLcm(readConfig(lcmConfig, config, name), steps),
  },
  CMStochasticIterativeScheduler: {
    isSubstituted: false,
    create: (config, steps, _, name) => createConsistency(readConfig(consistencyConfig, config, name), steps),
  },
  PNDMScheduler: {
    isSubstituted: true,
    create: (config, steps, _, name) => {
      const read = readConfig(pndmConfig, config, name);
      return createDdim({ ...read, clip_sample: false, clip_sample_range: 1, thresholding: false }, steps, 0);
    },
  },
  HeunDiscreteScheduler: { isSubstituted: true, create: heun },
  KDPM2DiscreteScheduler: { isSubstituted: true, create: heun },
  KDPM2AncestralDiscreteScheduler: { isSubstituted: true, create: heun },
  LMSDiscreteScheduler: {
    isSubstituted: true,
    create: (config, steps, _, name) => createEuler(readConfig(lmsConfig, config, name), steps),
  },
  DPMSolverMultistepScheduler: { isSubstituted: true, create: dpm },
  DPMSolverSinglestepScheduler: { isSubstituted: true, create: dpm },
  DEISMultistepScheduler: { isSubstituted: true, create: dpm },
  UniPCMultistepScheduler: { isSubstituted: true, create: dpm },
  SASolverScheduler: { isSubstituted: true, create: dpm },
  FlowMatchHeunDiscreteScheduler: { isSubstituted: true, create: flow },
};

/**
 * The scheduler of a parsed scheduler_config.json, set to `steps` steps (1 to MAX_TRAIN_TIMESTEPS). A class that
 * only another one can stand in for says so in `substitutedFor`. Throws `E_SCHEDULER` for a config that is no
 * object with a known `_class_name`, for values out of range, and for options of the class that are not done here.
 */
export function createScheduler(config: unknown, steps: number, options: SchedulerOptions = {}): Scheduler {
  const className = readClassName(config);
  const kind = Object.hasOwn(SCHEDULERS, className) ? SCHEDULERS[className] : undefined;
  if (kind === undefined) {
    throw new ArrowQuantError("E_SCHEDULER", `no scheduler of class "${className.slice(0, 100)}" is known`, {
      hint: `known are ${Object.keys(SCHEDULERS).join(", ")}`,
      details: { scheduler: className.slice(0, 100) },
    });
  }
  if (!Number.isInteger(steps) || steps < 1 || steps > MAX_TRAIN_TIMESTEPS) {
    throw new ArrowQuantError("E_SCHEDULER", `${steps} is no number of steps`, {
      hint: `use a whole number from 1 to ${MAX_TRAIN_TIMESTEPS}`,
      details: { steps },
    });
  }
  const { eta = 0 } = options;
  if (!(eta >= 0 && eta <= 1)) {
    throw new ArrowQuantError("E_SCHEDULER", `eta ${eta} is not from 0 to 1`, { details: { eta } });
  }
  const table = kind.create(config, steps, options, className);
  return createTableScheduler(table, kind.isSubstituted ? className : null);
}

function readClassName(config: unknown): string {
  if (typeof config === "object" && config !== null && "_class_name" in config) {
    const { _class_name: className } = config;
    if (typeof className === "string") return className;
  }
  throw new ArrowQuantError("E_SCHEDULER", 'the scheduler\'s configuration has no "_class_name"', {
    hint: "give the scheduler_config.json of a diffusers pipeline",
  });
}
