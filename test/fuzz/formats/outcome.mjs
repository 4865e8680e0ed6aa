/** What a case may come to: a right result, or an error with one of the codes its format may give. */
import assert from "node:assert/strict";
import { ArrowQuantError, ERRORS } from "../../../dist/errors.js";

/** Codes of a wrong input, less those that only a later step gives. */
export const INPUT_CODES = Object.keys(ERRORS).filter((code) => ERRORS[code].exitCode === 3 && code !== "E_CHANGED");

/**
 * Runs `work`, which throws an `AssertionError` where a result is wrong.
 * @returns `right` or the error's code
 */
export async function settle(codes, work) {
  try {
    await work();
    return "right";
  } catch (thrown) {
    if (!(thrown instanceof ArrowQuantError)) throw thrown;
    assert.ok(codes.includes(thrown.code), `${thrown.code} is no error of this format: ${thrown.message}`);
    assert.ok(thrown.message.length > 0, "an error without a message");
    JSON.stringify(thrown);
    return thrown.code;
  }
}
