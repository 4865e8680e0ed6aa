/**
 * Which input of a denoiser's graph is what, and which output its prediction. Names are those of diffusers,
 * optimum, the original DiT, SD and Flux repositories; where a name says nothing, type and shape decide if only
 * one input fits them.
 */
import { ArrowQuantError } from "../errors.js";
import { quoteName } from "../formats/json.js";
import type { OnnxFile } from "../formats/onnx/read.js";
import {
  canShareShape,
  describeValue,
  type GraphValue,
  isFloatValue,
  isIntegerValue,
  listInputs,
  listOutputs,
} from "./value.js";

export interface GraphRoles {
  /** Input: what is denoised, [batch, …]. */
  readonly sample: string;
  /** Input: timestep or sigma, one number or one per sample. */
  readonly time: string;
  /** Input: a class per sample. */
  readonly classLabels: string | null;
  /** Input: states of a text encoder, [batch, tokens, channels]. */
  readonly encoderStates: string | null;
  /** Further inputs, in the graph's order. */
  readonly others: readonly string[];
  /** Output. */
  readonly prediction: string;
  /** One sentence per role found, saying by what. */
  readonly evidence: readonly string[];
}

type Role = "sample" | "time" | "classLabels" | "encoderStates" | "prediction";

/** Roles that the user has settled. */
export type RoleNames = Partial<Record<Role, string>>;

interface RoleRule {
  readonly flag: string;
  readonly means: string;
  /** Usual names, as `plainName` gives them. */
  readonly names: RegExp;
  /** Type and rank that the role needs. */
  readonly fits: (value: GraphValue) => boolean;
}

const ROLE_RULES: Readonly<Record<Role, RoleRule>> = {
  sample: {
    flag: "--sample-input",
    means: "the sample to denoise",
    names: /^(?:noisy\w*|(?:latent_|model_)?(?:samples?|inputs?)|latents?|hidden_states|x|x_?t|images?|img)$/,
    fits: (value) => isFloatValue(value) && rankAtLeast(value, 2),
  },
  time: {
    flag: "--time-input",
    means: "the timestep or sigma",
    names: /^(?:time_?steps?|times?|t|ts|sigmas?|noise_levels?)$/,
    fits: (value) => (isFloatValue(value) || isIntegerValue(value)) && rankAtMost(value, 1),
  },
  classLabels: {
    flag: "--class-input",
    means: "the class labels",
    names: /^(?:class_?(?:labels?|ids?|es)?|labels?|y)$/,
    fits: (value) => isIntegerValue(value) && rankAtMost(value, 1),
  },
  encoderStates: {
    flag: "--encoder-input",
    means: "the encoder states",
    names: /^(?:encoder_(?:hidden_)?states|(?:prompt|text|caption)_embed(?:s|dings?)?|context|cond|txt)$/,
    fits: (value) => isFloatValue(value) && rankAtLeast(value, 3),
  },
  prediction: {
    flag: "--prediction-output",
    means: "the prediction",
    names: /^(?:\w*pred(?:iction)?|(?:out_)?samples?|(?:model_)?out(?:puts?)?|velocity|epsilon|eps|logits)$/,
    fits: (value) => isFloatValue(value) && rankAtLeast(value, 2),
  },
};

/**
 * The roles of the graph's inputs and of its prediction; `given` names settle theirs.
 * Throws `E_GRAPH` where a role that a denoiser must have is not evident or one has several candidates, naming
 * them and the flag that settles it; and where a given name is none of the graph's.
 */
export function inferRoles(file: OnnxFile, given: RoleNames = {}): GraphRoles {
  const inputs = listInputs(file);
  const evidence: string[] = [];
  const note = (role: Role, { value, by }: Choice): GraphValue => {
    evidence.push(`${role}: ${describeValue(value)}, ${by}`);
    return value;
  };
  const prediction = note("prediction", choosePrediction(listOutputs(file), given.prediction, file.path));

  const free = new Set(inputs);
  const chosen: Partial<Record<Role, GraphValue>> = {};
  const roles = ["sample", "time", "classLabels", "encoderStates"] as const;
  // What is settled or named comes before what is found by shape, so that this chooses among the rest only.
  for (const role of roles) {
    const name = given[role];
    const choice = name === undefined ? null : chooseGiven(role, name, inputs, file.path);
    if (choice === null) continue;
    if (!free.delete(choice.value)) throw givenTwice(choice.value, given, file.path);
    chosen[role] = note(role, choice);
  }
  for (const role of roles) {
    const choice = chosen[role] === undefined ? chooseNamed(role, [...free], prediction, file.path) : null;
    if (choice === null) continue;
    free.delete(choice.value);
    chosen[role] = note(role, choice);
  }
  for (const role of ["sample", "time"] as const) {
    if (chosen[role] !== undefined) continue;
    const choice = chooseByShape(role, [...free], inputs, prediction, file.path);
    free.delete(choice.value);
    chosen[role] = note(role, choice);
  }
  return {
    sample: (chosen.sample as GraphValue).name,
    time: (chosen.time as GraphValue).name,
    classLabels: chosen.classLabels?.name ?? null,
    encoderStates: chosen.encoderStates?.name ?? null,
    others: [...free].map(({ name }) => name),
    prediction: prediction.name,
    evidence,
  };
}

interface Choice {
  readonly value: GraphValue;
  readonly by: string;
}

function choosePrediction(outputs: readonly GraphValue[], given: string | undefined, path: string): Choice {
  if (given !== undefined) return chooseGiven("prediction", given, outputs, path);
  const fitting = outputs.filter(ROLE_RULES.prediction.fits);
  const [only, second] = fitting;
  if (only !== undefined && second === undefined) return { value: only, by: "the only output that it can be" };
  const named = fitting.filter(({ name }) => ROLE_RULES.prediction.names.test(plainName(name)));
  const [value, other] = named;
  if (value !== undefined && other === undefined) return { value, by: "by its name" };
  throw notEvident("prediction", named.length > 0 ? named : fitting, outputs, path);
}

function chooseGiven(role: Role, name: string, values: readonly GraphValue[], path: string): Choice {
  const value = values.find((candidate) => candidate.name === name);
  const { flag } = ROLE_RULES[role];
  if (value !== undefined) return { value, by: `by ${flag}` };
  const kind = role === "prediction" ? "output" : "input";
  throw new ArrowQuantError("E_GRAPH", `"${path}" has no ${kind} ${quoteName(name)}; it has: ${listNames(values)}`, {
    hint: `give one of them to ${flag}`,
    details: { path, role, name, [`${kind}s`]: values.map((candidate) => candidate.name) },
  });
}

/** The one free input with a usual name of the role, of several the one with the prediction's shape. */
function chooseNamed(role: Role, free: readonly GraphValue[], prediction: GraphValue, path: string): Choice | null {
  const { names, fits } = ROLE_RULES[role];
  const named = free.filter((value) => names.test(plainName(value.name)) && fits(value));
  const [first, second] = named;
  if (first === undefined) return null;
  if (second === undefined) return { value: first, by: "by its name" };
  const shaped = role === "sample" ? named.filter((value) => canShareShape(value, prediction)) : [];
  if (shaped.length === 1) return { value: shaped[0] as GraphValue, by: "by its name and the prediction's shape" };
  throw notEvident(role, named, free, path);
}

/** The one free input whose type and shape only this role has. */
function chooseByShape(
  role: "sample" | "time",
  free: readonly GraphValue[],
  inputs: readonly GraphValue[],
  prediction: GraphValue,
  path: string,
): Choice {
  const fits = (value: GraphValue): boolean =>
    ROLE_RULES[role].fits(value) &&
    value.shape !== null &&
    // Two axes are as well those of an embedding.
    (role === "time" || (value.shape.length >= 3 && canShareShape(value, prediction)));
  const fitting = free.filter(fits);
  const [value, second] = fitting;
  if (value === undefined || second !== undefined) throw notEvident(role, fitting, inputs, path);
  const by = role === "sample" ? "the only input of the prediction's shape" : "the only input of one number per sample";
  return { value, by };
}

/** `onnx::sample.1` and `/sample:0` as `sample`. */
function plainName(name: string): string {
  return name
    .toLowerCase()
    .replace(/^.*(?:::|\/)/, "")
    .replace(/(?:[.:]\d+)+$/, "");
}

function rankAtLeast({ shape }: GraphValue, rank: number): boolean {
  return shape === null || shape.length >= rank;
}

/** One per sample may be a column too. */
function rankAtMost({ shape }: GraphValue, rank: number): boolean {
  return shape === null || shape.length <= rank || (shape.length === rank + 1 && shape[rank] === 1);
}

function listNames(values: readonly GraphValue[]): string {
  return values.length === 0 ? "none" : values.map(describeValue).join(", ");
}

function notEvident(
  role: Role,
  candidates: readonly GraphValue[],
  values: readonly GraphValue[],
  path: string,
): ArrowQuantError {
  const { means, flag } = ROLE_RULES[role];
  const kind = role === "prediction" ? "output" : "input";
  const among = candidates.length > 0 ? candidates : values;
  const found = candidates.length > 0 ? "several could be it" : "none is known by its name or shape";
  const message = `which ${kind} of "${path}" is ${means} is not evident, ${found}: ${listNames(among)}`;
  return new ArrowQuantError("E_GRAPH", message, {
    hint: `name it with ${flag}`,
    details: { path, role, candidates: candidates.map(({ name }) => name), [`${kind}s`]: values.map((v) => v.name) },
  });
}

function givenTwice(value: GraphValue, given: RoleNames, path: string): ArrowQuantError {
  const roles = (Object.keys(ROLE_RULES) as Role[]).filter((role) => given[role] === value.name);
  const flags = roles.map((role) => ROLE_RULES[role].flag).join(" and ");
  const message = `${flags} both name input "${value.name}" of "${path}"`;
  return new ArrowQuantError("E_CONFLICT", message, { hint: "one input has one role", details: { path, roles } });
}
