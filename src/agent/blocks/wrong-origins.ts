import type { Clock } from "../../base/index.js";

/** For how long an origin that gave something wrong is not asked: it doubles with each time. */
const FIRST_BAN_MS = 10_000;
const LONGEST_BAN_MS = 900_000;

/** Origins of an image that gave what is not what its digest says: asked again ever more seldom, as a wrong disk does not become right by being read again. */
export class WrongOrigins {
  readonly #clock: Clock;
  readonly #wrong = new Map<string, { times: number; untilUs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Notes that what an origin gave was refused.
   * @returns what is to be said of it, and done.
   */
  note(origin: string, problem: string): string {
    const times = (this.#wrong.get(origin)?.times ?? 0) + 1;
    const banMs = Math.min(FIRST_BAN_MS * 2 ** Math.min(times - 1, 20), LONGEST_BAN_MS);
    this.#wrong.set(origin, { times, untilUs: this.#clock.nowUs() + banMs * 1000 });
    const often = times === 1 ? "" : `, ${times} times by now`;
    return `what ${origin} gave was refused${often}: ${problem}. It is asked again after ${Math.ceil(banMs / 1000)} s; check the image there (ramet image verify) and import it again, or name another source (images.sources)`;
  }

  /** Whether it is not asked at present. */
  isBanned(origin: string): boolean {
    const found = this.#wrong.get(origin);
    return found !== undefined && this.#clock.nowUs() < found.untilUs;
  }
}
