import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import { connectGuest } from "../network/guest-link.js";
import type { Services } from "../services.js";
import { PAGE_BYTES } from "../../base/index.js";
import { TransferEntry } from "./transfer-entry.js";

/** Lets a guest that was stopped for a migration run on here, at its place in the network. */
export async function runOn(guest: Guest): Promise<void> {
  const { emulator } = guest.live;
  await connectGuest(emulator, guest.config.network);
  await emulator.resume();
  await guest.update({ state: "running", outgoing: null });
}

/** From now on running the transfer lets its guest run on here. What the guest did elsewhere since the switch is lost then. */
export function offerRollBack(guest: Guest, entry: TransferEntry): void {
  entry.commands = {
    cancel: () => Promise.reject(new AgentError("bad-state", `transfer ${entry.transfer} is over`)),
    setSweep: () => {
      throw new AgentError("bad-state", `transfer ${entry.transfer} is over`);
    },
    run: async () => {
      guest.requireState("let run on", "paused");
      guest.requireIdle();
      await runOn(guest);
    },
  };
}

/** How a user gets a guest on, or rid of it, that was kept as it was at the switch. */
export function rollBackAdvice(guest: Guest, transfer: number): string {
  return `To let it run on from there: ramet resume ${transfer}; to give it up: ramet remove ${guest.name}`;
}

/** Enters the migrations that an earlier agent did not see the end of, so that their guests can still be let run on. */
export async function restoreMigrations(services: Services): Promise<void> {
  for (const guest of services.registry.list()) {
    const { outgoing } = guest.record;
    if (outgoing === undefined || !guest.hasEmulator || guest.occupation !== undefined) continue;
    if (guest.state === "running") {
      // That agent ended before it had stopped the guest.
      await guest.update({ outgoing: null });
      continue;
    }
    const entry = new TransferEntry({
      transfer: outgoing.transfer,
      kind: "migrate",
      role: "parent",
      guest: guest.name,
      peerGuest: guest.name,
      host: outgoing.host,
      pageCount: guest.config.memoryBytes / PAGE_BYTES,
      clock: services.clock,
    });
    services.book.add(entry);
    const message = `the agent was restarted while the guest was migrated to ${outgoing.host}`;
    entry.enter("failed", { message, error: new AgentError("transfer-failed", message) });
    offerRollBack(guest, entry);
    const stopped = `stopped as it was when ${outgoing.host} was to take over; ${message}. See there whether it runs.`;
    await guest.update({
      state: "paused",
      message: `${stopped} ${rollBackAdvice(guest, outgoing.transfer)}`,
    });
  }
}
