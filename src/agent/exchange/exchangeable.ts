import { existsSync } from "node:fs";
import { codeOf, messageOf } from "../../base/index.js";
import { isStoppedByDisk } from "../disks/disk-trouble.js";
import { isUnderWay } from "../../guest/index.js";
import { AgentError } from "../errors.js";
import { SILENT } from "../guests/found-state.js";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";
import { sharedBy } from "../transfers/sharers.js";
import type { Receiving } from "../transfers/child-move.js";

/** What keeps a guest from being given another emulator. */
export interface Obstacle {
  error: Error;
  /** Whether it goes away by itself, so that it may be tried again. */
  passes: boolean;
}

/** @throws AgentError `busy`, `bad-state`, `not-ready` with what it is that stands in the way. */
export function requireExchangeable(services: Pick<Services, "paths" | "exchanges">, guest: Guest): void {
  const obstacle = obstacleOf(services, guest);
  if (obstacle !== undefined) throw obstacle.error;
}

/** What keeps this guest from being given another emulator now; undefined when nothing does. */
export function obstacleOf(
  { paths, exchanges }: Pick<Services, "paths" | "exchanges">,
  guest: Guest,
): Obstacle | undefined {
  const refuse = (why: string, passes: boolean): Obstacle => ({ error: notReady(guest, why), passes });
  const receiving = receivingOf({ exchanges }, guest);
  const why = receiving?.obstacle();
  if (why !== undefined) return refuse(`its memory is being received, and ${why}`, true);
  try {
    // Whom its own transfer occupies, that goes on in the other emulator.
    if (receiving === undefined) guest.requireIdle();
  } catch (error) {
    return { error: asError(error), passes: true };
  }
  if (guest.state === "migrated") return refuse("it is migrated: wait until its memory has been sent", true);
  try {
    if (receiving === undefined) guest.requireState("given another emulator", "running", "paused");
    // One that was found and does not answer has none.
    if (!guest.hasEmulator) guest.requireState("given another emulator");
  } catch (error) {
    return { error: asError(error), passes: guest.state === "starting" || isSilent(guest) };
  }
  const stands = guest.state === "paused" ? obstacleOfPaused(guest) : undefined;
  if (stands !== undefined) return refuse(stands, isStoppedByDisk(guest));
  if (existsSync(paths.exchange(guest.id)))
    return refuse("an earlier exchange of its emulator has not come to its end", true);
  const { shared, memory } = guest.live;
  if (shared.sharers > 0) return refuse(sharedBy(shared.sharers), false);
  if (memory.private !== undefined)
    return refuse(
      "it shares, or came from sharing, another guest's memory and has no memory file of its own",
      false,
    );
  if (receiving !== undefined && isStoppedByDisk(guest)) return refuse("a disk of it has stopped it", true);
  if (guest.config.disks.some(({ chain }) => chain.some(isUnderWay)))
    return refuse("its disks are still on their way to this host (ramet disk list)", true);
  return undefined;
}

/** A guest that is paused stays so in the new emulator. */
function obstacleOfPaused(guest: Guest): string | undefined {
  // An emulator takes disks when it lets the guest run.
  if (guest.config.disks.length > 0)
    return "it is paused and has disks, which another emulator takes only when it lets the guest run";
  const { outgoing } = guest.record;
  if (outgoing !== undefined) return `it was stopped for its migration to ${outgoing.host}, where it may run`;
  return guest.live.memory.registration() === "missing"
    ? "it lacks memory, which will not come any more"
    : undefined;
}

/** A child that this agent receives; undefined for any other guest. */
export function receivingOf({ exchanges }: Pick<Services, "exchanges">, guest: Guest): Receiving | undefined {
  return guest.state === "receiving" ? exchanges.receiving.get(guest) : undefined;
}

function isSilent({ record }: Guest): boolean {
  return record.message?.startsWith(SILENT) === true;
}

function notReady(guest: Guest, why: string): AgentError {
  return new AgentError("not-ready", `guest ${guest.name} cannot be given another emulator yet: ${why}`);
}

function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(`${codeOf(thrown)}: ${messageOf(thrown)}`);
}
