/** What is done with a model of a modality where nobody says otherwise. */
import type { BitWidth, MethodName } from "../tensor/layout.js";
import type { Modality } from "./plan.js";

interface ModalityDefaults {
  /** The method of a width without calibration. */
  readonly methods: Readonly<Record<BitWidth, MethodName>>;
  /** The method of every width once there is calibration; null: the same. */
  readonly calibratedMethod: MethodName | null;
  readonly timeAware: boolean;
  readonly spatial: boolean;
}

const TEXT: ModalityDefaults = {
  methods: { 2: "r2q", 3: "hqq", 4: "hqq", 5: "hqq", 6: "hqq", 8: "hqq" },
  calibratedMethod: null,
  timeAware: true,
  spatial: false,
};
const SIGNAL: ModalityDefaults = {
  methods: { 2: "hqq", 3: "hqq", 4: "hqq", 5: "hqq", 6: "hqq", 8: "hqq" },
  calibratedMethod: "gptq",
  timeAware: false,
  spatial: true,
};

export const MODALITY_DEFAULTS: Readonly<Record<Modality, ModalityDefaults>> = {
  text: TEXT,
  code: TEXT,
  image: SIGNAL,
  audio: SIGNAL,
  video: SIGNAL,
};

/** A value and the rule that chose it. */
export interface Choice<T> {
  readonly value: T;
  readonly rule: string;
}
