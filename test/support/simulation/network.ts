import { CodedError } from "../../../src/base/index.js";
import type { FrameLane } from "../../../src/transfer/index.js";
import type { Life, SimulatedHost } from "./host.js";
import { simulatedLane } from "./lane.js";
import { laneOf } from "./mortal.js";
import type { Scheduler } from "./scheduler.js";

/** What a host answers instead of what it was asked for, or what a caller learns when it gets no answer. */
export type Refusal = "unreachable" | "link-lost" | "no-such-transfer" | "not-ready" | "bad-state" | "failed";

export class SimulatedRefusal extends CodedError<Refusal> {
  /** As a lane's dialling tells: there is no use in another attempt. */
  readonly fatal: boolean;

  constructor(code: Refusal, message: string, options: { fatal?: boolean; cause?: unknown } = {}) {
    super(code, message, { cause: options.cause });
    this.fatal = options.fatal ?? false;
  }
}

/** Share of the commands that take their time to arrive, and how long at most: agents may die and be started again meanwhile. */
const SLOW_COMMANDS = 0.04;
const SLOW_US = 200_000;

/** Everything between hosts: commands that are answered or not, and page lanes that break. */
export class SimulatedNetwork {
  readonly #scheduler: Scheduler;
  readonly #options: { bytesPerUs: number; dialFails: number; answersLost: number };
  readonly #lanes: ReturnType<typeof simulatedLane>[] = [];

  constructor(scheduler: Scheduler, options: { bytesPerUs: number; dialFails: number; answersLost: number }) {
    this.#scheduler = scheduler;
    this.#options = options;
  }

  /** Asks a host's agent to do something. The request arrives although its sender dies, and the answer is lost with whoever dies before it is there. */
  call<T>(
    from: Life,
    to: SimulatedHost,
    serve: (there: Life) => Promise<T>,
    options: { answerMayBeLost?: boolean } = {},
  ): Promise<T> {
    if (!from.acts()) return from.never();
    const slow = this.#scheduler.random.chance(SLOW_COMMANDS);
    const answered = this.#scheduler.lag(slow ? SLOW_US : 400).then(async () => {
      const there = to.life;
      if (there === undefined) throw new SimulatedRefusal("unreachable", `no agent listens on ${to.name}`);
      const answer = await orItsEnd(there, serve(there), to.name);
      await this.#scheduler.lag(400);
      const lost =
        options.answerMayBeLost === true && this.#scheduler.random.chance(this.#options.answersLost);
      if (lost) throw new SimulatedRefusal("link-lost", "the simulated answer was lost");
      return answer;
    });
    return from.hear(answered);
  }

  /** Dials a page lane. `accept` is the other agent's, and throws to refuse it. */
  async dial(
    from: Life,
    to: SimulatedHost,
    accept: (there: Life, lane: FrameLane) => void,
  ): Promise<FrameLane> {
    if (!from.acts()) return from.never();
    // Dialling may come through although whoever dialled has died meanwhile.
    await this.#scheduler.lag(400);
    if (this.#scheduler.random.chance(this.#options.dialFails))
      throw new SimulatedRefusal("unreachable", "the simulated dial failed");
    const there = to.life;
    if (there === undefined) throw new SimulatedRefusal("unreachable", `no agent listens on ${to.name}`);
    const lane = simulatedLane(this.#scheduler, this.#options.bytesPerUs);
    this.#lanes.push(lane);
    const mine = laneOf(from, lane.child, () => lane.end("child"));
    accept(
      there,
      laneOf(there, lane.parent, () => lane.end("parent")),
    );
    await from.lag();
    return mine;
  }

  /** Breaks one of the lanes there are. */
  breakOne(): void {
    const open = this.#lanes.filter((lane) => lane.isOpen());
    if (open.length > 0) this.#scheduler.random.pick(open).break();
  }
}

function orItsEnd<T>(there: Life, answer: Promise<T>, name: string): Promise<T> {
  return new Promise((resolve, reject) => {
    there.onDeath(() => reject(new SimulatedRefusal("link-lost", `the agent on ${name} has ended`)));
    there.hear(answer).then(resolve, reject);
  });
}
