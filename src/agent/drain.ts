import { codeOf, messageOf, sleep, withDeadline } from "../base/index.js";
import type { Services } from "./services.js";
import type { TransferEntry } from "./transfers/transfer-entry.js";

const POLL_INTERVAL_MS = 50;
const CANCEL_DEADLINE_MS = 5000;
const PAUSE_DEADLINE_MS = 1000;

/**
 * Gives up what is done to chains of disks, and waits for exchanges of emulators and of roles, which take a moment, and for running transfers, for so long; then ends those whose child has not run yet. The others are left as they are, for the next agent to go on with.
 * Whoever is in a hurry ends the waiting, and nothing is ended then.
 */
export async function drainTransfers(
  services: Services,
  options: { drainMs: number; hurried: Promise<void> },
): Promise<void> {
  const { book, clock, log } = services;
  await Promise.all([services.exchanges.end(), services.swaps.end(), services.chains.end()]);
  let hurry = false;
  void options.hurried.then(() => (hurry = true));
  const untilUs = clock.nowUs() + options.drainMs * 1000;
  if (book.active.length > 0) log.info({ transfers: book.active.length }, "waiting for running transfers");
  while (book.active.length > 0 && clock.nowUs() < untilUs && !hurry) await sleep(clock, POLL_INTERVAL_MS);
  if (hurry) return leavePauses(services);
  for (const entry of book.active.filter(isEndable)) {
    const cancel =
      entry.commands?.cancel(`the agent of ${services.configuration.name} is stopping`) ?? Promise.resolve();
    try {
      await withDeadline(clock, CANCEL_DEADLINE_MS, `the end of transfer ${entry.transfer}`, cancel);
    } catch (error) {
      log.warn(
        { transfer: entry.transfer, code: codeOf(error), problem: messageOf(error) },
        "a transfer could not be ended in order",
      );
    }
  }
  await windDown(services);
}

/** Whether nobody has run the child yet, so that its parent just runs on. All others are left to the next agent. */
function isEndable({ phase }: TransferEntry): boolean {
  return ["preparing", "precopying", "arming", "pausing"].includes(phase);
}

/** A transfer that was told to end may be in its pause: its guest has to run again before this agent lets go of it. */
async function windDown({ book, clock }: Services): Promise<void> {
  const untilUs = clock.nowUs() + CANCEL_DEADLINE_MS * 1000;
  const ending = () => book.active.filter((entry) => isEndable(entry) || entry.phase === "starting");
  while (ending().length > 0 && clock.nowUs() < untilUs) await sleep(clock, POLL_INTERVAL_MS);
}

/** Nobody wants to wait any more: only a guest that stands still in a pause is given the moment it needs. */
async function leavePauses({ book, clock }: Services): Promise<void> {
  const untilUs = clock.nowUs() + PAUSE_DEADLINE_MS * 1000;
  const pausing = () => book.active.filter(({ phase }) => phase === "pausing");
  while (pausing().length > 0 && clock.nowUs() < untilUs) await sleep(clock, POLL_INTERVAL_MS);
}
