import { CodedError } from "../../base/index.js";
import type { ChildOutcome } from "../../control/index.js";
import { AgentError } from "../errors.js";

const NO_ROOM = "this host has no room for that at present; remove something, or ask whoever runs the host";

/** Refusals whose words count what all guests of the host have. */
function countsOthers(code: string): code is "no-room" | "too-many-guests" {
  return code === "no-room" || code === "too-many-guests";
}

/** What a tenant is told of an error: where there is no room, that, and not what others take of it. */
export function refusalFor(error: unknown): unknown {
  if (!(error instanceof CodedError) || !countsOthers(error.code)) return error;
  return new AgentError(error.code, NO_ROOM, { cause: error });
}

/** The same of a child that could not be made. */
export function outcomeFor(outcome: ChildOutcome): ChildOutcome {
  const { error } = outcome;
  if (error === undefined || !countsOthers(error.code)) return outcome;
  return { ...outcome, error: { ...error, message: NO_ROOM } };
}
