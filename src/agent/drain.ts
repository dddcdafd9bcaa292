import { codeOf, messageOf, sleep, withDeadline } from "../base/index.js";
import type { Services } from "./services.js";

const POLL_INTERVAL_MS = 50;
const CANCEL_DEADLINE_MS = 5000;

/** Waits for running transfers, for so long; then ends those that can be ended without losing a guest. */
export async function drainTransfers(
  services: Services,
  options: { drainMs: number; hurried: Promise<void> },
): Promise<void> {
  const { book, clock, log } = services;
  let hurry = false;
  void options.hurried.then(() => (hurry = true));
  const untilUs = clock.nowUs() + options.drainMs * 1000;
  if (book.active.length > 0) log.info({ transfers: book.active.length }, "waiting for running transfers");
  while (book.active.length > 0 && clock.nowUs() < untilUs && !hurry) await sleep(clock, POLL_INTERVAL_MS);
  for (const entry of book.active) {
    // Of a guest that has switched hosts, one part is here and one there: nobody may end either.
    if (entry.kind === "migrate" && entry.phase === "paging") {
      log.warn(
        { transfer: entry.transfer },
        "the agent stops in the middle of a migration; what is here of the guest is kept",
      );
      continue;
    }
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

/** A transfer that was told to end may be in its pause: its guest has to run again before this agent lets go of it. */
async function windDown({ book, clock }: Services): Promise<void> {
  const untilUs = clock.nowUs() + CANCEL_DEADLINE_MS * 1000;
  const ending = () => book.active.filter((entry) => entry.kind !== "migrate" || entry.phase !== "paging");
  while (ending().length > 0 && clock.nowUs() < untilUs) await sleep(clock, POLL_INTERVAL_MS);
}
