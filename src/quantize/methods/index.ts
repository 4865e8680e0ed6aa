/** The table of methods. */
import type { MethodName } from "../../tensor/layout.js";
import { gptq } from "./gptq.js";
import { hqq } from "./hqq.js";
import type { Method } from "./method.js";
import { mse } from "./mse.js";
import { r2q } from "./r2q.js";
import { rtn } from "./rtn.js";

export const METHODS: Readonly<Record<MethodName, Method>> = { rtn, hqq, mse, r2q, gptq };

export function findMethod(name: MethodName): Method {
  return METHODS[name];
}
