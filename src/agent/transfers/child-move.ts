import { assert, deferred } from "../../base/index.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import type { Services } from "../services.js";
import type { IncomingChildOptions } from "./hosted-child.js";
import type { IncomingChild } from "./incoming-child.js";
import { readTransferRecords, type ChildRecord, type RecordFile } from "./transfer-record.js";

/** A child that is still received, as whoever exchanges its emulator sees it. */
export interface Receiving {
  /** Why it cannot be moved to another emulator now, in words; undefined when it can. */
  obstacle(): string | undefined;
  move(): ChildMove;
}

/** What a child goes on with that another one of this agent was before. */
export type Succession = Pick<IncomingChildOptions, "session" | "moving"> & { live?: LiveEmulator };

type Succeed = (child: IncomingChild, live: LiveEmulator, move: ChildMove) => IncomingChild;

/** Notes how a child's transfer is given up and gone on with in another emulator's memory: as another agent would, with `goOn`. */
export function makeMovable(
  { exchanges, paths }: Pick<Services, "exchanges" | "paths">,
  child: IncomingChild,
  goOn: (record: RecordFile<ChildRecord>, from: Succession) => IncomingChild,
): void {
  const { guest } = child;
  const succeed: Succeed = (before, live, moving) => {
    const session = before.give();
    const { children } = readTransferRecords(paths.guestMemory(guest.id));
    const record = children.find((file) => file.record.transfer === before.entry.transfer);
    assert(record !== undefined, "a child that is received has a record");
    return goOn(record, { live, moving, ...(session === undefined ? {} : { session }) });
  };
  exchanges.receiving.set(guest, {
    obstacle: () => child.obstacle,
    move: () => new ChildMove(child, succeed),
  });
}

/**
 * The transfer of a child while another emulator takes the child over. From its begin to its end nobody ends the child, nor lets it run or stops it for the transfer's sake; what the
 * transfer comes to meanwhile is seen to at the end.
 */
export class ChildMove {
  #child: IncomingChild;
  readonly #succeed: Succeed;
  readonly #over = deferred<void>();

  constructor(child: IncomingChild, succeed: Succeed) {
    this.#child = child;
    this.#succeed = succeed;
    child.moving = this;
  }

  /**
   * Has pages installed through this emulator's mapping from here on, and its touches of missing ones served. Nobody may touch memory through the other one's any more.
   * @throws the transfer's own error when it has failed; MemoryError when the emulator has ended.
   */
  moveTo(live: LiveEmulator): void {
    this.#child.requireGoing();
    this.#child = this.#succeed(this.#child, live, this);
  }

  /** The same, to the emulator it came from, also when the transfer has failed because the other emulator has ended: should it have failed otherwise, it does so again. @throws MemoryError. */
  moveBack(live: LiveEmulator): void {
    this.#child = this.#succeed(this.#child, live, this);
  }

  end(): void {
    this.#child.moving = undefined;
    this.#over.resolve();
    this.#child.settleMove();
  }

  /** The child that goes on, when the move is over. */
  async settled(): Promise<IncomingChild> {
    await this.#over.promise;
    return this.#child;
  }
}
