import { TransferError } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import type { TransferEntry } from "./transfer-entry.js";

/** A migrated guest that was just told to run does so in a moment. */
export function toldToRun({ guest, host }: TransferEntry): TransferError {
  return new TransferError(
    "already-switched",
    `guest ${guest} was told a moment ago to run on ${host}; ask again when it is known whether it does`,
  );
}

/** The parent of a guest that runs elsewhere may not run on. */
export function runsThere({ guest, host }: TransferEntry): TransferError {
  return new TransferError(
    "already-switched",
    `guest ${guest} runs on ${host} already; a migration can only be cancelled before that`,
  );
}

/** What is wrong with the comparison of the child's pages with the parent's, if anything is. */
export function verifyError({ facts: { verify } }: TransferEntry): AgentError | undefined {
  if (verify === undefined)
    return new AgentError("transfer-failed", "the child's host did not tell the result of the comparison");
  if (verify.mismatches === 0) return undefined;
  return new AgentError(
    "transfer-failed",
    `${verify.mismatches} of ${verify.checked} pages differ from the parent's at the instant`,
  );
}
