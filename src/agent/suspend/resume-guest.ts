import { statSync } from "node:fs";
import { codeOf, messageOf } from "../../base/index.js";
import type { Params, Result } from "../../control/index.js";
import { AgentError } from "../errors.js";
import type { Choice } from "../guests/emulator-catalogue.js";
import { digestsOf } from "../guests/guest-record.js";
import type { Guest } from "../guests/guest.js";
import type { LiveEmulator } from "../guests/live-emulator.js";
import { connectGuest } from "../network/guest-link.js";
import { requireFreePort } from "../network/ports.js";
import { requireBridge } from "../network/tap.js";
import type { Services } from "../services.js";
import { SuspensionFiles, type SuspensionRecord } from "./suspension-record.js";

/**
 * Lets a suspended guest run on, in an emulator of its own again: the one that guests start on, or another of this host.
 *
 *     files                           agent                            new emulator
 *       memory, disks ─────────────────────────────────────────────────▶ opens them
 *       device state ─────────────────▶ ───────────────────────────────▶ loads it
 *       ◀─────────────── record: told
 *                                       resume ────────────────────────▶ runs
 *       ◀──────────── removed
 *
 * Until the record says `told` whatever fails leaves it suspended, and so does the next agent; from then on the new emulator has it.
 * @throws AgentError `bad-state`, `busy`, `not-ready`, `bad-record`, `no-such-emulator`, `refused`, `port-taken`, `network`, `no-room`, `resume-failed`, `draining`.
 */
export async function resumeGuest(
  services: Services,
  guest: Guest,
  { emulator }: Pick<Params<"guest.resume">, "emulator">,
): Promise<Result<"guest.resume">> {
  guest.requireIdle();
  guest.requireState("resumed", "suspended");
  const leave = guest.occupy({ what: "being resumed", transfers: [] });
  try {
    return await services.exchanges.during(async () => {
      const choice = await chooseEmulator(services, guest, emulator);
      return new Resuming(services, guest, choice).run();
    });
  } finally {
    leave();
  }
}

/** @throws AgentError `no-such-emulator`; `refused` when it does not know the guest's machine type. */
async function chooseEmulator(
  { catalogue }: Services,
  { config }: Guest,
  wanted: string | undefined,
): Promise<Choice> {
  const choice = await catalogue.choose(config.architecture, wanted);
  if (choice.machines.includes(config.machine)) return choice;
  throw new AgentError(
    "refused",
    `the emulator ${choice.binary} (${choice.version}) has no machine type ${config.machine}, which guest ${config.name} was started with; ` +
      "ramet emulators --json lists what each has, and --emulator chooses one",
  );
}

/** One suspended guest on its way into an emulator. */
class Resuming {
  readonly #services: Services;
  readonly #guest: Guest;
  readonly #choice: Choice;
  readonly #files: SuspensionFiles;

  constructor(services: Services, guest: Guest, choice: Choice) {
    this.#services = services;
    this.#guest = guest;
    this.#choice = choice;
    this.#files = new SuspensionFiles(services.paths, guest.id);
  }

  async run(): Promise<Result<"guest.resume">> {
    const guest = this.#guest;
    const record = this.#files.read();
    if (record?.step !== "saved") throw this.#isGone("there is no record of it there");
    this.#requireMemory();
    const state = this.#files.readState(record);
    await this.#requireNetwork();
    await this.#takeRoom(record, state.length);
    const live = await this.#load(state);
    const resumedAtUs = await this.#letRun(live, record);
    const message = await this.#settle(live);
    const { version, pid } = live.emulator;
    const emulator = { version, pid, path: this.#choice.binary };
    const stoodStillMs = Math.max(0, Math.round(resumedAtUs / 1000 - record.stoppedAtMs));
    guest.log.info({ emulator, stoodStillMs }, "a suspended guest runs on");
    return { guest: guest.view(), emulator, stoodStillMs, ...(message === undefined ? {} : { message }) };
  }

  /** Its memory, as it was left. @throws AgentError `not-ready`, `bad-record`. */
  #requireMemory(): void {
    const path = this.#services.paths.ram(this.#guest.id);
    const sizeBytes = statSync(path, { throwIfNoEntry: false })?.size;
    const { memoryBytes } = this.#guest.config;
    if (sizeBytes === undefined) throw this.#isGone("there is no memory there");
    if (sizeBytes === memoryBytes) return;
    throw new AgentError(
      "bad-record",
      `the memory ${path} of a suspended guest has ${sizeBytes} bytes, and the guest has ${memoryBytes}`,
    );
  }

  #isGone(why: string): AgentError {
    const { name, id } = this.#guest;
    return new AgentError("not-ready", goneMessage(name, this.#services.paths.guestMemory(id), why));
  }

  /** Nothing was kept free for it. @throws AgentError `port-taken`, `network`. */
  async #requireNetwork(): Promise<void> {
    const { isolation } = this.#services;
    const { network } = this.#guest.config;
    if (network.mode === "tap" && network.bridge !== undefined) requireBridge(network.bridge);
    if (network.mode !== "user") return;
    for (const forward of network.forwards) await requireFreePort(forward, { confined: isolation.confines });
  }

  /** One whose memory was not there when the agent started has no room yet. @throws AgentError `no-room`. */
  async #takeRoom(record: SuspensionRecord, stateBytes: number): Promise<void> {
    const guest = this.#guest;
    const { starter, paths } = this.#services;
    const { emulatorVersion, stoppedAtMs } = record;
    guest.suspended ??= {
      reservation: await starter.reserve(guest.config.memoryBytes, `guest ${guest.name}`),
      emulatorVersion,
      stoppedAtMs,
      stateBytes,
      ramPath: paths.ram(guest.id),
    };
  }

  /** An emulator that has all of the guest, and has not run it. When this rejects there is none, and the guest is suspended. */
  async #load(state: Uint8Array): Promise<LiveEmulator> {
    const guest = this.#guest;
    const { source, boot } = this.#services;
    const { binary, dataDirectories } = this.#choice;
    const reservation = guest.suspended?.reservation;
    if (reservation === undefined) throw this.#isGone("it was given up");
    const holds = digestsOf(guest.record).map((digest) => boot.hold(digest));
    let live: LiveEmulator | undefined;
    try {
      // One that could not be ended must not have its memory beside another one.
      await source.endLeftover(guest.id);
      const seat = guest.record.seat ?? "run";
      const { config } = guest;
      live = await source.relaunch({ config, reservation, holds, binary, dataDirectories, seat });
      await live.emulator.loadDeviceState(state);
      // A port is its emulator's from its start.
      if (config.network.mode === "tap") await connectGuest(live.emulator, config.network);
      return live;
    } catch (error) {
      if (live === undefined) for (const hold of holds) hold.letGo();
      else await this.#end(live);
      throw this.#failed(error);
    }
  }

  /** From a loaded guest to one that runs. When this rejects the guest is suspended, or the new emulator's. */
  async #letRun(live: LiveEmulator, record: SuspensionRecord): Promise<number> {
    try {
      await this.#files.write({ ...record, step: "told" });
    } catch (error) {
      // What was written may hold.
      await this.#end(live);
      await this.#putBack(record);
      throw this.#failed(error);
    }
    try {
      return (await live.emulator.resume()).resumedAtUs;
    } catch (error) {
      if (await hasRefused(live, error)) {
        await this.#end(live);
        await this.#putBack(record);
      } else {
        // It may have run: it is this emulator's, whatever becomes of that.
        await this.#settle(live);
      }
      throw this.#failed(error);
    }
  }

  /** The emulator has the guest. @returns what is wrong nevertheless, in words. */
  async #settle(live: LiveEmulator): Promise<string | undefined> {
    const guest = this.#guest;
    guest.suspended = undefined;
    guest.attach(live);
    try {
      await guest.update({ state: "running", seat: live.seat });
      await this.#files.remove();
      if (guest.config.network.mode === "tap") await live.emulator.announce();
      return undefined;
    } catch (error) {
      // Its record says whose it is: the next agent brings it to its end.
      guest.log.error({ problem: messageOf(error) }, "that a guest was resumed could not be noted in full");
      return `it runs, but: ${messageOf(error)}`.slice(0, 500);
    }
  }

  /** The emulator has not run the guest, which is suspended again. */
  async #end(live: LiveEmulator): Promise<void> {
    try {
      await live.endKeepingMemory();
    } catch (error) {
      this.#guest.log.error({ problem: messageOf(error) }, "an emulator that failed could not be ended");
    }
  }

  async #putBack(record: SuspensionRecord): Promise<void> {
    try {
      await this.#files.write(record);
    } catch (error) {
      this.#guest.log.error(
        { problem: messageOf(error) },
        "it could not be noted that a guest is suspended still: do not restart the agent before it is resumed",
      );
    }
  }

  #failed(error: unknown): AgentError {
    if (error instanceof AgentError) return error;
    const { name, state } = this.#guest;
    const { binary, version } = this.#choice;
    const saved = this.#guest.suspended?.emulatorVersion;
    const by = saved === undefined ? "" : ` (its device state is of ${saved})`;
    const message = `guest ${name} could not be resumed in the emulator ${binary} (${version})${by}: ${messageOf(error)}; it is ${state}`;
    return new AgentError("resume-failed", message.slice(0, 1000), { cause: error });
  }
}

/** Whether an emulator was told to run and certainly did not: it says so and still waits. */
async function hasRefused({ emulator }: LiveEmulator, error: unknown): Promise<boolean> {
  if (codeOf(error) !== "command-failed") return false;
  try {
    return (await emulator.status()) === "paused";
  } catch {
    return false;
  }
}

/** What is said of a suspended guest whose memory is not where it was. */
export function goneMessage(name: string, directory: string, why: string): string {
  return `the memory of guest ${name} is not in ${directory}: ${why}. Bring that directory back as it was, or remove the guest`;
}
