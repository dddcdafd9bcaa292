import { codeOf, deferred, messageOf, sleep, withDeadline } from "../../base/index.js";
import { TransferError } from "../../transfer/index.js";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";
import type { OutgoingChild } from "./outgoing-child.js";
import { rollBackAdvice, runOn } from "./roll-back.js";
import { whatBecameOf } from "./undecided.js";

const STAY_DEADLINE_MS = 10_000;

/** How often the removal of a guest is tried that a full disk keeps from being noted. */
const REMOVE_AGAIN_MS = 10_000;

/** A migration from the moment on at which its child may run, to its end: the parent is removed, kept for its operator, or runs on. */
export class MigrationEnd {
  readonly #services: Services;
  readonly #guest: Guest;
  readonly #child: OutgoingChild;
  readonly #vacate: () => void;
  readonly #leave: () => void;

  constructor(options: {
    services: Services;
    guest: Guest;
    child: OutgoingChild;
    /** The guest's memory is needed no more. May be called twice. */
    vacate: () => void;
    /** So, and nothing need be known of the transfer either. */
    leave: () => void;
  }) {
    this.#services = options.services;
    this.#guest = options.guest;
    this.#child = options.child;
    this.#vacate = options.vacate;
    this.#leave = options.leave;
    const { entry } = this.#child;
    entry.abandon = async (error) => {
      this.#child.abandon(error);
      const { clock } = this.#services;
      await withDeadline(clock, STAY_DEADLINE_MS, "the end of the migration", this.#stayed.promise);
    };
  }

  readonly #stayed = deferred<void>();

  /** What a roll-back has to know of the child, also when its transfer is long over. */
  #noteChild(): void {
    const { outgoing } = this.#guest.record;
    const { url, holder } = this.#child.record;
    if (outgoing === undefined) return;
    const leaseMs = outgoing.leaseMs ?? this.#services.configuration.limits.migrationLeaseSeconds * 1000;
    this.#guest.note({
      outgoing: { ...outgoing, url, leaseMs, ...(holder === undefined ? {} : { holder }) },
    });
  }

  get #host(): string {
    return this.#child.target.host;
  }

  /** The record already says where the guest goes; a disk that is full must not keep it from going on there. */
  toMigrated(): void {
    const what = this.#guest.config.disks.length === 0 ? "its memory is" : "its memory and disks are";
    const message = `runs on ${this.#host}; ${what} still being sent there`;
    this.#noteChild();
    const { outgoing } = this.#guest.record;
    const switchedAtMs = outgoing?.switchedAtMs ?? this.#services.clock.wallMs();
    this.#guest.note({
      state: "migrated",
      message,
      ...(outgoing === undefined ? {} : { outgoing: { ...outgoing, switchedAtMs } }),
    });
  }

  /** Nobody knows whether the child runs: its host is asked until it says so, or until a user gives the child up. */
  async decide(undecided: TransferError, firstAskMs?: number): Promise<void> {
    const { entry, session, target } = this.#child;
    const { clock } = this.#services;
    const { log } = this.#guest;
    this.#child.markUndecided();
    this.#noteChild();
    this.#guest.note({ state: "paused", message: undecided.message.slice(0, 400) });
    const isOver = (): boolean =>
      this.#child.cancelled || this.#child.detached || session.phase.phase === "failed";
    try {
      const found = await whatBecameOf({
        ask: () => target.settle(),
        isOver,
        ...(firstAskMs === undefined ? {} : { firstAskMs }),
        clock,
        log,
      });
      if (found === "runs") {
        entry.enter("paging", { message: "the child runs after all" });
        this.#child.onStep("paging");
        this.toMigrated();
        return await this.finish();
      }
      if (found === "gone") return await this.#runOn(undecided);
      if (found !== "unknown") return await this.#stay(new TransferError("child-failed", found.kept));
      if (!this.#child.detached) await this.#stay(undecided);
    } catch (error) {
      log.error(
        { problem: messageOf(error) },
        "a migration that was undecided could not be brought to its end",
      );
      await this.#stay(new TransferError("undecided", messageOf(error)));
    }
  }

  /** Waits until the child has all its memory and disks; then the guest is removed here. Without a good end it is kept. */
  async finish(): Promise<void> {
    try {
      const failure = await this.#child.finish(async () => {
        const { transfer } = this.#child.entry;
        this.#guest.log.info({ transfer, to: this.#host }, "migrated; the guest is removed here");
        this.#vacate();
        // With its directory goes the record, by which a new agent would go on with the removal.
        await this.#remove();
        this.#leave();
      });
      if (failure !== undefined) await this.#stay(failure);
    } catch (error) {
      this.#guest.log.error({ problem: messageOf(error) }, "a migrated guest could not be removed in full");
    }
  }

  /** A guest that came here by a migration itself is removed only when that is noted; a full disk holds that up, and not the guest, which runs elsewhere. */
  async #remove(): Promise<void> {
    for (;;) {
      try {
        return await this.#services.registry.remove(this.#guest);
      } catch (error) {
        if (codeOf(error) !== "no-room" || this.#child.detached) throw error;
        this.#guest.log.error({ problem: messageOf(error) }, "a migrated guest cannot be removed yet");
        await sleep(this.#services.clock, REMOVE_AGAIN_MS);
      }
    }
  }

  /** The child is gone without having run. A guest whose emulator has ended meanwhile stays what it is. */
  async #runOn(undecided: TransferError): Promise<void> {
    this.#child.session.fail(new TransferError("cancelled", undecided.message));
    this.#child.fail(undecided);
    this.#leave();
    if (this.#guest.hasEmulator) await runOn(this.#guest);
    else this.#guest.note({ outgoing: null });
  }

  /** The child may have run, and is lost: what the guest was at the switch is kept for its operator to decide. */
  async #stay(error: TransferError): Promise<void> {
    const { entry, session } = this.#child;
    session.fail(error);
    this.#child.fail(error);
    this.#leave();
    entry.abandon = undefined;
    if (!this.#guest.hasEmulator) return this.#stayed.resolve();
    const stopped = `stopped as it was when ${this.#host} took over; that failed: ${error.message}`.slice(
      0,
      700,
    );
    await this.#guest.update({
      state: "paused",
      message: `${stopped}. ${rollBackAdvice(this.#guest)}`,
    });
    this.#stayed.resolve();
  }
}
