import { statSync } from "node:fs";
import { codeOf, messageOf } from "../../base/index.js";
import type { ExchangeOutcome, Params } from "../../control/index.js";
import { otherSeat } from "../../guest/index.js";
import { syncFile } from "../disks/fork-disks.js";
import { AgentError } from "../errors.js";
import type { Choice } from "../guests/emulator-catalogue.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import { noteRunsOn, noteStandsStill } from "../guests/stands-still.js";
import { connectOrGoWithout, disconnectGuest } from "../network/guest-link.js";
import type { Services } from "../services.js";
import type { ChildMove } from "../transfers/child-move.js";
import { ExchangeFile } from "./exchange-record.js";
import { receivingOf, requireExchangeable } from "./exchangeable.js";
import { untilQuick } from "./until-quick.js";

/** What an exchange cost, in microseconds, and what it moved. */
type Figures = Pick<ExchangeOutcome, "pauseUs" | "parts" | "stateBytes" | "memory">;

/**
 * Puts another emulator in the place of the one that runs a guest. Memory and disks stay where they are: both emulators have mapped the same file and opened the same disks, and
 * one of them at a time uses them.
 *
 *     old emulator                    agent                        new emulator
 *       runs                            starts it ───────────────▶ waits for a device state
 *       ◀────────────── stop, save ──── record: preparing
 *       saves, lets go of the disks ──▶ ─────────────────────────▶ loads, takes the disks
 *                                       record: told
 *                                       resume ──────────────────▶ runs
 *       ends ◀───────────────────────── its ports go over
 *
 * Until the record says `told`, whatever fails lets the old one run on, and the next agent does the same; from then on the new one is the guest's.
 * @throws AgentError `bad-state`, `busy`, `not-ready`, `no-such-emulator`, `refused`, `exchange-failed`; GuestError. The guest runs on in the emulator it had, unless the message says otherwise.
 */
export async function exchangeGuest(
  services: Services,
  params: Params<"guest.exchange">,
): Promise<ExchangeOutcome> {
  const guest = services.registry.find(params.name);
  requireExchangeable(services, guest);
  const { config } = guest;
  return exchangeTo(services, guest, await services.catalogue.choose(config.architecture, params.emulator));
}

/** As `exchangeGuest`, to an emulator that was chosen. */
export async function exchangeTo(services: Services, guest: Guest, choice: Choice): Promise<ExchangeOutcome> {
  requireMachine(guest, choice);
  requireExchangeable(services, guest);
  // A child that is received is its transfer's, which goes along.
  const move = receivingOf(services, guest)?.move();
  const leave =
    move === undefined ? guest.occupy({ what: "an exchange of its emulator", transfers: [] }) : undefined;
  try {
    return await services.exchanges.during(async (signal) =>
      new Exchange(services, { guest, choice, signal, move }).run(),
    );
  } finally {
    leave?.();
    move?.end();
  }
}

/** @throws AgentError `refused` when the emulator does not know the guest's machine type. */
function requireMachine({ config }: Guest, choice: Choice): void {
  if (choice.machines.includes(config.machine)) return;
  throw new AgentError(
    "refused",
    `the emulator ${choice.binary} (${choice.version}) has no machine type ${config.machine}, which guest ${config.name} was started with; ` +
      "ramet emulators --json lists what each has",
  );
}

/** One exchange under way. */
class Exchange {
  readonly #services: Services;
  readonly #guest: Guest;
  readonly #choice: Choice;
  readonly #signal: AbortSignal;
  readonly #old: LiveEmulator;
  /** Of a guest whose memory is still received. */
  readonly #move: ChildMove | undefined;
  #hasMoved = false;
  /** One that is paused stays so. */
  readonly #isToRun: boolean;
  readonly #file: ExchangeFile;

  constructor(
    services: Services,
    {
      guest,
      choice,
      signal,
      move,
    }: { guest: Guest; choice: Choice; signal: AbortSignal; move: ChildMove | undefined },
  ) {
    this.#services = services;
    this.#guest = guest;
    this.#choice = choice;
    this.#signal = signal;
    this.#move = move;
    this.#isToRun = guest.state !== "paused";
    this.#old = guest.live;
    // Before the new emulator: the next agent is to end it.
    this.#file = new ExchangeFile(services.paths.exchange(guest.id), otherSeat(this.#old.seat));
  }

  async run(): Promise<ExchangeOutcome> {
    const old = this.#old.emulator;
    const from = { version: old.version, pid: old.pid };
    let next: LiveEmulator;
    try {
      next = await this.#startNext();
    } catch (error) {
      this.#file.remove();
      throw this.#failed(error);
    }
    const { emulator } = next;
    const to = { version: emulator.version, pid: emulator.pid, path: this.#choice.binary };
    const figures = await this.#handOver(next);
    const message = await this.#cleanUp(next);
    this.#guest.log.info({ from, to, ...figures }, "the guest runs in another emulator");
    return {
      guest: this.#guest.view(),
      from,
      to,
      ...figures,
      ...(message === undefined ? {} : { message }),
    };
  }

  /** The new emulator, with all of the device state that can be given ahead. That it starts shows that it has every device of the guest. */
  async #startNext(): Promise<LiveEmulator> {
    const { config } = this.#guest;
    const { binary, dataDirectories } = this.#choice;
    const live = this.#old;
    const next = await this.#services.source.launchBeside({ config, live, binary, dataDirectories });
    if (this.#move === undefined) return next;
    try {
      // Before it touches anything: what is not there yet is not to read as zeros.
      next.memory.fillable().hold();
      return next;
    } catch (error) {
      await next.end();
      throw error;
    }
  }

  /** From the guest's stop to its going on; `next` has it when this resolves. Otherwise the old emulator has it, unless that is not to be known. */
  async #handOver(next: LiveEmulator): Promise<Figures> {
    const { emulator: old } = this.#old;
    const guest = this.#guest;
    let hasStopped = false;
    let isTold = false;
    try {
      await next.console.prepare(next.emulator);
      const [head] = await Promise.all([old.prepareDeviceState({ handOver: true }), this.#syncDisks()]);
      await next.emulator.beginDeviceState(head);
      this.#requireWanted();
      guest.beginExchange();
      hasStopped = true;
      const { stoppedAtUs } = await old.stop();
      const before = this.#allocatedBytes();
      const marks = [this.#nowUs()];
      const state = (await old.saveDeviceState({ handOver: true })).compose();
      marks.push(this.#nowUs());
      // Nobody touches memory through the old one any more, and loading does so through the new one.
      this.#hasMoved = this.#move !== undefined;
      this.#move?.moveTo(next);
      await next.emulator.loadDeviceState(state.subarray(head.length));
      marks.push(this.#nowUs());
      this.#requireAlive();
      this.#file.write("told");
      isTold = true;
      const { resumedAtUs } = this.#isToRun ? await next.emulator.resume() : { resumedAtUs: stoppedAtUs };
      marks.push(this.#nowUs());
      next.takeOver(this.#old);
      guest.endExchange(next);
      if (guest.record.standsStill === true) noteRunsOn(guest);
      const [stopped = 0, saved = 0, loaded = 0, ran = 0] = marks;
      return {
        pauseUs: Math.max(0, resumedAtUs - stoppedAtUs),
        parts: { saveUs: saved - stopped, loadUs: loaded - saved, runUs: ran - loaded },
        stateBytes: state.length,
        memory: { allocatedBeforeBytes: before, allocatedAfterBytes: this.#allocatedBytes() },
      };
    } catch (error) {
      if (isTold && !(await this.#hasRefused(next, error))) await this.#leaveTo(next);
      else await this.#takeBack(next, hasStopped);
      throw this.#failed(error);
    }
  }

  /** What the guest's transfer comes to, it is told when the exchange is over. */
  #moveBack(): void {
    if (!this.#hasMoved || this.#old.exit !== undefined) return;
    try {
      this.#move?.moveBack(this.#old);
    } catch (error) {
      this.#guest.log.warn(
        { problem: messageOf(error) },
        "nobody serves the memory of a guest that is received",
      );
    }
  }

  /** Whether the new emulator was told to run and certainly did not: it says so and still waits. */
  async #hasRefused(next: LiveEmulator, error: unknown): Promise<boolean> {
    if (codeOf(error) !== "command-failed") return false;
    try {
      return (await next.emulator.status()) === "paused";
    } catch {
      return false;
    }
  }

  /** The new emulator may have run: the guest is its, whatever becomes of that. */
  async #leaveTo(next: LiveEmulator): Promise<void> {
    next.takeOver(this.#old);
    this.#guest.endExchange(next);
    await this.#cleanUp(next);
  }

  /** The guest goes on in the old emulator, which takes its disks back once the new one has let go of them. */
  async #takeBack(next: LiveEmulator, hasStopped: boolean): Promise<void> {
    const guest = this.#guest;
    try {
      // Before the memory's last mapping but the old one's is gone, and with it who installs pages.
      this.#moveBack();
      await next.end();
      if (!hasStopped) return this.#old.emulator.forgetDeviceState();
      this.#file.takeBack();
      if (this.#isToRun) await this.#old.emulator.resume();
    } catch (error) {
      guest.log.error(
        { problem: messageOf(error), hasStopped },
        "an exchange that failed could not be taken back",
      );
      if (hasStopped && this.#old.exit === undefined)
        noteStandsStill(guest, this.#old, "an exchange of its emulator failed", error);
    } finally {
      if (hasStopped) guest.endExchange(this.#old);
      // One that could not be ended is left to the next agent.
      if (next.exit !== undefined) this.#file.remove();
    }
  }

  /**
   * Gives the new emulator the ports of the old one and ends that. The guest runs meanwhile.
   * @returns what is wrong with its network, in words.
   */
  async #cleanUp(next: LiveEmulator): Promise<string | undefined> {
    const guest = this.#guest;
    const { network } = guest.config;
    try {
      // One that has ended has no ports either.
      if (network.mode === "user") await disconnectGuest(this.#old.emulator, network).catch(() => {});
      // A tap device is the same one, and has not left its bridge.
      const message = network.mode === "user" ? await connectOrGoWithout(next.emulator, network) : undefined;
      await this.#old.end();
      await guest.update({
        seat: next.seat,
        ...(message === undefined ? {} : { state: guest.state, message }),
      });
      this.#file.remove();
      return message;
    } catch (error) {
      // The record says which of both is the guest's: the next agent brings it to its end.
      guest.log.error(
        { problem: messageOf(error) },
        "an exchange of an emulator could not be brought to its end",
      );
      return `it runs in the new emulator, but: ${messageOf(error)}`.slice(0, 500);
    }
  }

  /** Writes to the disk what the host has of the guest's disks in memory, so that its stop, which waits for that, takes less. */
  async #syncDisks(): Promise<void> {
    for (const { chain } of this.#guest.config.disks) {
      const path = chain[0]?.path ?? "";
      await untilQuick(
        () => syncFile(path),
        () => this.#nowUs(),
      );
    }
  }

  /** @throws AgentError `draining`. */
  #requireWanted(): void {
    if (this.#signal.aborted) this.#services.requireAccepting();
  }

  /** Somebody may have killed the guest, or it has switched itself off, which ended the old emulator; one that crashed after it had saved is not needed any more. */
  #requireAlive(): void {
    const { exit } = this.#old;
    if (exit === undefined || exit.cause === "crashed") return;
    throw new AgentError("bad-state", `guest ${this.#guest.name} has ended`);
  }

  #allocatedBytes(): number {
    return statSync(this.#services.paths.ram(this.#guest.id)).blocks * BLOCK_BYTES;
  }

  #nowUs(): number {
    return Math.floor(this.#services.clock.nowUs());
  }

  #failed(error: unknown): AgentError {
    if (error instanceof AgentError) return error;
    const { name, state, hasEmulator } = this.#guest;
    const { binary, version } = this.#choice;
    const isOld = hasEmulator && this.#guest.live === this.#old;
    const what = !hasEmulator
      ? "has ended"
      : isOld
        ? `is ${state} in the emulator it had`
        : "is in the new emulator";
    return new AgentError(
      "exchange-failed",
      `guest ${name} could not be brought to the emulator ${binary} (${version}): ${messageOf(error)}; it ${what}`.slice(
        0,
        1000,
      ),
      { cause: error },
    );
  }
}

/** stat(2) counts in these, whatever the file system's own size. */
const BLOCK_BYTES = 512;
