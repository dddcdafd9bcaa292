import { sleep, withDeadline, type Clock, type Holder, type Log } from "../../base/index.js";
import { ChildMachine, Instant, ParentSession, TransferError, WorkingSet } from "../../transfer/index.js";
import type { FaultThreadHandle } from "../faults/fault-thread.js";
import { dialLane, type Dialler } from "../transfers/dial-lane.js";
import type { LaneRoutes } from "../transfers/lane-routes.js";
import { namingTheEnd } from "../transfers/naming-the-end.js";
import { newIdentity } from "../transfers/new-transfer.js";
import type { Stage } from "./stage.js";

/** Where this agent dials itself, and who answers there. */
export interface OwnAddress {
  url: string;
  holder: Holder;
}

/** What a rehearsed transfer is made with: the parts real ones are made with. */
export interface RehearsalParts {
  routes: LaneRoutes;
  faults: FaultThreadHandle;
  dialler: Dialler;
  limits: { copiesMib: number; stallMs: number };
  clock: Clock;
  log: Log;
}

/** How one is played. */
export interface Scene {
  kind: "fork" | "migrate";
  compress: boolean;
  /** Pages with content: a range of the parent's memory that was filled. */
  first: number;
  count: number;
  /** How often the child touches pages of these before the sweep begins, and again while it goes. */
  touches: number;
}

const MIB = 1024 * 1024;
const DEADLINE_MS = 5000;

/** How long the child waits for what it asks for, ahead of the sweep: as long as a real one's start takes at least. */
const QUIET_MS = 5;

/** One transfer from this agent to itself, of memory that is nobody's, by all that serves real ones but the emulators. */
export class RehearsedTransfer {
  readonly #parts: RehearsalParts;
  readonly #stage: Stage;
  readonly #scene: Scene;
  readonly #session: ParentSession;
  readonly #machine: ChildMachine;
  readonly #instant: Instant;
  readonly #undo: (() => void)[] = [];

  constructor(parts: RehearsalParts, stage: Stage, options: { at: OwnAddress; scene: Scene }) {
    const { routes, clock, log, limits } = parts;
    const { scene, at } = options;
    this.#parts = parts;
    this.#stage = stage;
    this.#scene = scene;
    const { transfer, token } = newIdentity({ routes });
    const copies = stage.copies();
    this.#undo.push(() => copies.remove());
    this.#instant = new Instant({
      copies,
      tracking: scene.kind === "fork",
      memory: stage.parentMemory,
      copyBudgetBytes: limits.copiesMib * MIB,
      stallDeadlineMs: limits.stallMs,
      clock,
      log,
    });
    const session = new ParentSession({
      transfer,
      instant: this.#instant,
      clock,
      log,
      compress: { choice: scene.compress ? "lz4" : "auto", first: scene.compress, learned: true },
      sweep: false,
      ahead: new WorkingSet({ pageCount: stage.pageCount, clock }).forChild({
        learns: scene.kind === "fork",
      }),
      rateBytesPerSecond: undefined,
      priority: "normal",
      onFailing: () => {},
    });
    this.#session = session;
    this.#undo.push(
      routes.open(transfer, token, {
        holder: () => at.holder,
        acceptLane: (lane, epoch, connection, offers) => {
          if (lane !== "precopy") session.acceptLane(lane, epoch, connection, offers);
        },
        shareFile: () => stage.shareFile(),
      }),
    );
    this.#machine = this.#makeMachine({ transfer, token, ...at });
  }

  /** Plays it to its end. @throws TransferError, LaneError or MemoryError when it does not come to one: `abandon` it then. */
  async play(): Promise<void> {
    const { clock } = this.#parts;
    await withDeadline(clock, DEADLINE_MS, "the end of a rehearsed transfer", this.#play());
    for (const undo of this.#undo.splice(0)) undo();
    await this.#stage.child.empty();
  }

  /** Ends it where it stands; the stage is of no more use. */
  abandon(why: string): void {
    const error = new TransferError("cancelled", why);
    this.#machine.cancel(error);
    this.#session.fail(error);
    this.#instant.detach();
    for (const undo of this.#undo.splice(0)) undo();
  }

  async #play(): Promise<void> {
    const { parent, child } = this.#stage;
    const { first, count, touches, kind } = this.#scene;
    this.#machine.start();
    await Promise.all([this.#session.linked, this.#instant.arm()]);
    await this.#instant.converge();
    this.#instant.freeze();
    this.#session.begin({ quietMs: QUIET_MS });
    const touched: Promise<void>[] = [child.read({ first, count }, touches)];
    if (kind === "fork") touched.push(parent.write({ first, count }, touches));
    await touched[0];
    this.#session.childRuns();
    this.#session.setSweep(true);
    touched.push(child.read({ first, count }, touches));
    const ends = await Promise.all([this.#machine.ended, this.#session.ended]);
    for (const end of ends) if (end.phase === "failed") throw end.error;
    await Promise.all(touched);
    this.#machine.progress();
    this.#session.progress();
    // Its lanes have ended when the thread has heard so.
    await sleep(this.#parts.clock, 1);
  }

  #makeMachine(to: { transfer: number; token: string; url: string; holder: Holder }): ChildMachine {
    const { faults, dialler, clock, log } = this.#parts;
    const notes = this.#stage.notes();
    this.#undo.push(() => notes.remove());
    const memory = this.#stage.childMemory.fillable();
    const thread = faults.child({
      transfer: to.transfer,
      share: () => memory.fillShared(),
      digests: notes.digestsPath,
      host: "this host",
    });
    return new ChildMachine({
      transfer: to.transfer,
      memory: namingTheEnd(memory, "this host"),
      faults: thread.faults,
      dial: (purpose, epoch) =>
        purpose === "urgent"
          ? thread.dial({ ...to, purpose, epoch })
          : dialLane(dialler, { ...to, purpose, epoch }),
      clock,
      log,
      verify: false,
      notes,
      precopied: false,
      onEverything: () => {},
    });
  }
}
