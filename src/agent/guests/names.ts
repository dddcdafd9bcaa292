import { AgentError } from "../errors.js";
import type { Guest } from "./guest.js";

/**
 * Makes sure that another guest can be entered beside these.
 * @throws AgentError `name-taken` or `too-many-guests`.
 */
export function requireRoomAmong(
  guests: readonly Guest[],
  { name, id, maxGuests }: { name: string; id: string | undefined; maxGuests: number },
): void {
  const same = guests.find((guest) => guest.id === id);
  if (same !== undefined) {
    throw new AgentError(
      "name-taken",
      `this host has guest ${same.id} already, as ${same.name} (${same.state}); remove that one first`,
    );
  }
  if (guests.some((guest) => guest.name === name)) {
    throw new AgentError(
      "name-taken",
      `this host has a guest ${name} already; choose another name, or remove that one first`,
    );
  }
  if (guests.length >= maxGuests) {
    throw new AgentError(
      "too-many-guests",
      "this host has as many guests as it may have (limits.maxGuests); remove one first",
    );
  }
}

/** Also what is said to a tenant of another one's guest. */
export function noSuchGuest(name: string): AgentError {
  return new AgentError("no-such-guest", `this host has no guest ${name}; list shows those it has`);
}
