import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { codeOf, messageOf } from "../../base/index.js";
import type { GuestView } from "../../control/index.js";
import { isUnderWay } from "../../guest/index.js";
import { syncFile } from "../disks/fork-disks.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import { noteStandsStill } from "../guests/stands-still.js";
import type { Services } from "../services.js";
import { syncDirectory } from "../store/files.js";
import { sharedBy } from "../transfers/sharers.js";
import { SuspensionFiles, type SuspensionRecord } from "./suspension-record.js";

/**
 * Suspends a running guest: memory and disks stay where they are, its device state lies beside the memory, and no emulator has it.
 *
 *     emulator                        agent                            on the disk, where the memory is on one
 *       runs                            ─────────────────────────────▶ record: saving
 *       ◀──────────── stop, save
 *       saves, lets go of the disks ──▶ ─────────────────────────────▶ disks, memory, device state
 *                                       ─────────────────────────────▶ record: saved
 *       ends ◀───────────────────────── ─────────────────────────────▶ the guest's own record
 *
 * Until the record says `saved`, whatever fails lets the guest run on, and the next agent does the same; from then on it is suspended, whoever ends.
 * @throws AgentError `bad-state`, `busy`, `not-ready`, `suspend-failed`, `draining`; the guest runs on, unless the message says otherwise.
 */
export async function suspendGuest(services: Services, guest: Guest): Promise<GuestView> {
  requireSuspendable(services, guest);
  const leave = guest.occupy({ what: "being suspended", transfers: [] });
  try {
    await services.exchanges.during(async (signal) => {
      const requireWanted = (): void => {
        if (signal.aborted) services.requireAccepting();
      };
      await new Suspending(services, { guest, leave, requireWanted }).run();
    });
    return guest.view();
  } finally {
    leave();
  }
}

/** @throws AgentError `busy`, `bad-state`, `not-ready` with what it is that stands in the way. */
function requireSuspendable({ paths }: Services, guest: Guest): void {
  guest.requireIdle();
  if (guest.state === "receiving" || guest.state === "migrated")
    throw notReady(guest, `it is ${guest.state}: wait until its memory is all in one place`);
  if (guest.state === "frozen")
    throw notReady(guest, `it is frozen, for its children: ramet thaw ${guest.name} first`);
  guest.requireState("suspended", "running");
  if (existsSync(paths.exchange(guest.id)))
    throw notReady(guest, "an exchange of its emulator has not come to its end");
  const { shared, memory } = guest.live;
  if (shared.sharers > 0) throw notReady(guest, sharedBy(shared.sharers));
  if (memory.private !== undefined)
    throw notReady(
      guest,
      "it shares, or came from sharing, another guest's memory and has no memory file of its own that could stay; migrate it, or fork it with --memory copied",
    );
  if (guest.config.disks.some(({ chain }) => chain.some(isUnderWay)))
    throw notReady(guest, "its disks are still on their way to this host (ramet disk list)");
}

function notReady(guest: Guest, why: string): AgentError {
  return new AgentError("not-ready", `guest ${guest.name} cannot be suspended yet: ${why}`);
}

/** One guest on its way out of its emulator. */
class Suspending {
  readonly #services: Services;
  readonly #guest: Guest;
  readonly #leave: () => void;
  readonly #requireWanted: () => void;
  readonly #live: LiveEmulator;
  readonly #files: SuspensionFiles;
  readonly #begun: SuspensionRecord;

  /** @param parts.requireWanted throws when it is to be given up before the guest stops. */
  constructor(
    services: Services,
    { guest, leave, requireWanted }: { guest: Guest; leave: () => void; requireWanted: () => void },
  ) {
    this.#services = services;
    this.#guest = guest;
    this.#leave = leave;
    this.#requireWanted = requireWanted;
    this.#live = guest.live;
    this.#files = new SuspensionFiles(services.paths, guest.id);
    const { version: emulatorVersion } = guest.live.emulator;
    this.#begun = { version: 1, step: "saving", emulatorVersion, stoppedAtMs: services.clock.wallMs() };
  }

  async run(): Promise<void> {
    const record = await this.#save();
    const { log } = this.#guest;
    try {
      await this.#guest.update({ state: "suspended" });
    } catch (error) {
      // The record beside the memory is what counts.
      log.warn({ problem: messageOf(error) }, "a guest's own record does not say that it is suspended");
    }
    try {
      await this.#live.endKeepingMemory();
    } catch (error) {
      // It stands still, and whoever resumes the guest ends it first.
      log.error({ problem: messageOf(error) }, "the emulator of a suspended guest could not be ended");
    }
    this.#settle(record);
    log.info({ ...record }, "the guest is suspended, and no emulator has it");
  }

  /** From a guest that runs to one of which all is in its files; it runs on, or has ended, when this rejects. */
  async #save(): Promise<SuspensionRecord> {
    const { emulator } = this.#live;
    const guest = this.#guest;
    let hasStopped = false;
    try {
      await this.#files.write(this.#begun);
      await Promise.all([emulator.prepareDeviceState({ handOver: true }), this.#sync()]);
      this.#requireWanted();
      guest.beginExchange();
      hasStopped = true;
      const { stoppedAtUs } = await emulator.stop();
      const state = (await emulator.saveDeviceState({ handOver: true })).compose();
      await this.#sync();
      const saved = await this.#files.writeState(state);
      this.#requireAlive();
      const stoppedAtMs = Math.floor(stoppedAtUs / 1000);
      const record: SuspensionRecord = { ...this.#begun, step: "saved", stoppedAtMs, state: saved };
      await this.#files.write(record);
      return record;
    } catch (error) {
      await this.#takeBack(hasStopped);
      throw this.#failed(error);
    }
  }

  /** The guest goes on in its emulator, which takes its disks back. First of all it is noted that it is to. */
  async #takeBack(hasStopped: boolean): Promise<void> {
    const guest = this.#guest;
    try {
      await this.#files.remove();
      if (!hasStopped) return this.#live.emulator.forgetDeviceState();
      if (this.#live.exit === undefined) await this.#live.emulator.resume();
    } catch (error) {
      guest.log.error(
        { problem: messageOf(error), hasStopped },
        "the suspension of a guest could not be taken back",
      );
      if (hasStopped && this.#live.exit === undefined)
        noteStandsStill(guest, this.#live, "it could not be suspended", error);
    } finally {
      if (hasStopped) guest.endExchange(this.#live);
    }
  }

  /** The guest has no emulator any more, but its memory and the room for that. */
  #settle({ emulatorVersion, stoppedAtMs, state }: SuspensionRecord): void {
    const guest = this.#guest;
    guest.suspended = {
      reservation: this.#live.reservation,
      stoppedAtMs,
      emulatorVersion,
      stateBytes: state?.sizeBytes ?? 0,
      ramPath: this.#services.paths.ram(guest.id),
    };
    guest.detachEmulator();
    guest.endExchange(this.#live);
    // In the same step, so that who waited for the end of its emulator finds it free.
    this.#leave();
  }

  /** Writes to the disk what the host has of memory and disks, and the names that lead there. On tmpfs that is nothing. */
  async #sync(): Promise<void> {
    const { paths } = this.#services;
    const { id, config } = this.#guest;
    const layers = config.disks.flatMap(({ chain }) => chain.filter(({ format }) => format === "qcow2"));
    for (const { path } of layers) {
      await syncFile(path);
      await syncDirectory(dirname(path));
    }
    await syncFile(paths.ram(id));
    await syncDirectory(paths.memory);
    await syncDirectory(paths.guests);
  }

  /** Somebody may have killed the guest, or it has switched itself off; an emulator that crashed after it had saved is not needed any more. */
  #requireAlive(): void {
    const { exit } = this.#live;
    if (exit === undefined || exit.cause === "crashed") return;
    throw new AgentError("bad-state", `guest ${this.#guest.name} has ended`);
  }

  #failed(error: unknown): AgentError {
    if (error instanceof AgentError && codeOf(error) !== "no-room") return error;
    const { name, state, hasEmulator } = this.#guest;
    const what = hasEmulator && this.#live.exit === undefined ? `is ${state}` : "has ended";
    const message = `guest ${name} could not be suspended: ${messageOf(error)}; it ${what}`;
    return new AgentError("suspend-failed", message.slice(0, 1000), { cause: error });
  }
}
