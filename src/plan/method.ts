/** Which method quantizes a layer. */
import { describeOrigin, type ResolvedConfig } from "../config/config.js";
import { ArrowQuantError } from "../errors.js";
import type { BitWidth, MethodName } from "../tensor/layout.js";
import { type LayerKnowledge, NOTHING_KNOWN } from "./calibration.js";
import { type Choice, MODALITY_DEFAULTS } from "./defaults.js";
import { methodAtWidth } from "./fallback.js";
import type { Modality } from "./plan.js";

/**
 * The methods of a layer at `bits`: one, or for `auto` all that can be told apart, the likeliest first.
 * @throws `E_CONFLICT` for a method that needs calibration where `isCalibrated` says there is none
 */
export function chooseMethods(
  modality: Modality,
  bits: BitWidth,
  config: ResolvedConfig,
  isCalibrated: boolean,
  knowledge: LayerKnowledge,
): Choice<readonly [MethodName, ...MethodName[]]> {
  const { method, symmetric } = config.values;
  const origin = describeOrigin(config.origins.method);
  if (method === null) return single(chooseDefault(modality, bits, config, isCalibrated, knowledge));
  if (method === "auto") {
    if (!isCalibrated) throw refuseUncalibrated(config, method);
    const first = chooseDefault(modality, bits, config, isCalibrated, knowledge);
    if (!knowledge.hasHeldBack) {
      return single({ value: first.value, rule: `no held-back samples: ${first.value}` });
    }
    const others = AUTO_METHODS.filter((name) => name !== first.value && isPossible(name, bits, config, knowledge));
    return { value: [first.value, ...others], rule: origin };
  }
  if (method === "gptq") {
    if (!isCalibrated) throw refuseUncalibrated(config, method);
    if (knowledge.hasHessian) return single({ value: method, rule: origin });
    const { value } = chooseDefault(modality, bits, config, isCalibrated, NOTHING_KNOWN);
    return single({ value, rule: `${missingText(knowledge)}: ${value}` });
  }
  const value = methodAtWidth(method, bits);
  if (value === method) return single({ value, rule: origin });
  if (symmetric) return single({ value: "rtn", rule: `${method} has no ${bits} bits, hqq no symmetric codes` });
  return single({ value, rule: `${origin}: ${value} at ${bits} bits, which ${method} does not have` });
}

/** What `auto` tries, in the order in which ties are won. */
const AUTO_METHODS: readonly MethodName[] = ["gptq", "hqq", "mse", "rtn", "r2q"];

function isPossible(
  method: MethodName,
  bits: BitWidth,
  { values: { symmetric, scale_bits } }: ResolvedConfig,
  { hasHessian }: LayerKnowledge,
): boolean {
  if (method === "gptq") return hasHessian;
  if (method === "hqq") return !symmetric;
  return method !== "r2q" || (bits === 2 && !symmetric && scale_bits !== "none");
}

function chooseDefault(
  modality: Modality,
  bits: BitWidth,
  config: ResolvedConfig,
  isCalibrated: boolean,
  knowledge: LayerKnowledge,
): Choice<MethodName> {
  const { symmetric, scale_bits } = config.values;
  const { methods, calibratedMethod } = MODALITY_DEFAULTS[modality];
  if (calibratedMethod !== null && isCalibrated && isPossible(calibratedMethod, bits, config, knowledge)) {
    return { value: calibratedMethod, rule: `strategy ${modality}: ${calibratedMethod} with calibration` };
  }
  const chosen = methods[bits];
  if (symmetric) {
    const origin = describeOrigin(config.origins.symmetric);
    const rule = `strategy ${modality}: rtn, as ${chosen} has no symmetric codes (${origin})`;
    return { value: "rtn", rule };
  }
  if (chosen === "r2q" && scale_bits === "none") {
    const origin = describeOrigin(config.origins.scale_bits);
    return { value: "hqq", rule: `strategy ${modality}: hqq, as r2q needs coded scales (${origin})` };
  }
  const reason = calibratedMethod === null ? "" : isCalibrated ? `, ${missingText(knowledge)}` : ", no calibration";
  return { value: chosen, rule: `strategy ${modality}: ${chosen} at ${bits} bits${reason}` };
}

function missingText({ isMeasured }: LayerKnowledge): string {
  return isMeasured ? "no Hessian" : "no statistics";
}

function single(choice: Choice<MethodName>): Choice<readonly [MethodName]> {
  return { value: [choice.value], rule: choice.rule };
}

function refuseUncalibrated(config: ResolvedConfig, method: string): ArrowQuantError {
  const rule = describeOrigin(config.origins.method);
  return new ArrowQuantError("E_CONFLICT", `method ${method} (${rule}) needs calibration, and there is none`, {
    hint: "add --calibration with samples or sampling; without it hqq is the best method",
    details: { method, origin: rule },
  });
}
