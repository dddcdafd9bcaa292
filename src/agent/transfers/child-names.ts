/** The longest name the control API takes. */
const MAX_NAME_CHARACTERS = 63;

/** So many names are tried before the refusal is given to the user. */
const MAX_TRIES = 200;

/** The names a child may get: one its user chose, or the next of a row that its siblings share. */
export interface ChildNames {
  next(): string;
  readonly hasMore: boolean;
}

/** The one name a user chose. */
export function chosenName(name: string): ChildNames {
  return { next: () => name, hasMore: false };
}

/** `PARENT-1`, `PARENT-2`, …; siblings take from the same row, so that no two get the same. */
export class NumberedNames implements ChildNames {
  readonly #stem: string;
  #number = 0;

  constructor(parent: string) {
    const longest = MAX_NAME_CHARACTERS - String(MAX_TRIES).length - 1;
    this.#stem = parent.slice(0, longest).replace(/-+$/, "");
  }

  get hasMore(): boolean {
    return this.#number < MAX_TRIES;
  }

  next(): string {
    this.#number += 1;
    return `${this.#stem}-${this.#number}`;
  }
}
