import { messageOf } from "../../base/index.js";
import { EndedRegion } from "../../memory/index.js";
import type { Reservation } from "../guests/admission.js";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";
import { removeGuestMemory } from "../store/guest-memory.js";

/**
 * The memory of a parent that an agent found without its emulator, while children lacked pages of it. It has one owner, as that of an emulator that runs:
 * it counts with all of its memory until no child needs it any more, and is removed then.
 *
 * Which pages are as they were at the instant was to be seen from the emulator alone, by what was write-protected. It need not be known: what the parent wrote while a child lacked
 * it was copied first, copies stay until every child has reported the page received, and a child reports only what a new agent of its own finds again. So
 * what any child can ask for is its copy, where there is one, and what the file has otherwise.
 */
export class EndedParent {
  readonly region: EndedRegion;
  readonly #services: Services;
  readonly #guest: Guest;
  readonly #reservation: Reservation;

  private constructor(services: Services, guest: Guest, region: EndedRegion) {
    this.#services = services;
    this.#guest = guest;
    this.region = region;
    this.#reservation = services.admission.adopt(guest.config.memoryBytes);
  }

  /** @throws MemoryError `bad-file`. */
  static open(services: Services, guest: Guest): EndedParent {
    return new EndedParent(services, guest, EndedRegion.open(services.paths.ram(guest.id)));
  }

  /** Lets go of the memory, which stays for the next agent. May be called twice. */
  leave(): void {
    this.region.close();
    this.#reservation.release();
  }

  /** No child needs the memory any more. Does not wait until it is gone. */
  remove(): void {
    this.region.close();
    removeGuestMemory(this.#services.paths, this.#guest.id)
      .catch((error: unknown) => {
        const problem = messageOf(error);
        this.#guest.log.error({ problem }, "the memory of an ended emulator could not be removed");
      })
      .finally(() => this.#reservation.release());
  }
}
