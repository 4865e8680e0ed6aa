/** The table of methods. */
import { ArrowQuantError } from "../../errors.js";
import type { MethodName } from "../../tensor/layout.js";
import { hqq } from "./hqq.js";
import type { Method } from "./method.js";
import { mse } from "./mse.js";
import { r2q } from "./r2q.js";
import { rtn } from "./rtn.js";

export const METHODS: Readonly<Partial<Record<MethodName, Method>>> = { rtn, hqq, mse, r2q };

/** The method of that name; `E_CONFLICT` where this version cannot run it. */
export function findMethod(name: MethodName): Method {
  const method = METHODS[name];
  if (method !== undefined) return method;
  throw new ArrowQuantError("E_CONFLICT", `method ${name} needs calibration, which this version does not do`, {
    hint: `use one of ${Object.keys(METHODS).join(", ")}`,
    details: { method: name },
  });
}
