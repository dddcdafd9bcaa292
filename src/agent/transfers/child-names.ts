import { guestNameIn, MAX_PLAIN_NAME_CHARACTERS, plainNameOf, tenantOfGuest } from "../../base/index.js";
import { AgentError } from "../errors.js";

/** So many names are tried before the refusal is given to the user. */
const MAX_TRIES = 200;

/** The names a child may get: one its user chose, or the next of a row that its siblings share. */
export interface ChildNames {
  next(): string;
  readonly hasMore: boolean;
}

/**
 * The name of a guest that comes of another one, or takes its place: it is of the same tenant, whether that is said or not.
 * @throws AgentError `bad-request` when another tenant is named.
 */
export function nameBeside(guest: string, name: string): string {
  const tenant = tenantOfGuest(guest);
  const whole = guestNameIn(tenant, name);
  if (tenantOfGuest(whole) === tenant) return whole;
  throw new AgentError(
    "bad-request",
    `guest ${guest} is of the tenant ${tenant}, and so is what is made of it; ${name} names another one`,
  );
}

/** The one name a user chose. */
export function chosenName(name: string): ChildNames {
  return { next: () => name, hasMore: false };
}

/** `PARENT-1`, `PARENT-2`, … of the parent's tenant; siblings take from the same row, so that no two get the same. */
export class NumberedNames implements ChildNames {
  readonly #stem: string;
  readonly #tenant: string;
  #number = 0;

  constructor(parent: string) {
    const longest = MAX_PLAIN_NAME_CHARACTERS - String(MAX_TRIES).length - 1;
    this.#tenant = tenantOfGuest(parent);
    this.#stem = plainNameOf(parent).slice(0, longest).replace(/-+$/, "");
  }

  get hasMore(): boolean {
    return this.#number < MAX_TRIES;
  }

  next(): string {
    this.#number += 1;
    return guestNameIn(this.#tenant, `${this.#stem}-${this.#number}`);
  }
}
