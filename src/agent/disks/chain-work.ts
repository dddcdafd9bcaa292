import { statfs } from "node:fs/promises";
import { codeOf, messageOf, sleep } from "../../base/index.js";
import type { ChainJobState, DiskLayer, GuestDisk } from "../../guest/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import { usedBytes, type ChainPlan } from "./chain-plan.js";
import { writeChainWork } from "./chain-work-record.js";
import { syncFile } from "./fork-disks.js";
import { noteChain, settleChain, whileStill, type ChainServices } from "./settle-chain.js";

/** How often the emulator is asked how far it is; oftener at first, and while the guest stands still. */
const POLL_MS = 200;
const FIRST_POLL_MS = 10;
const PAUSE_POLL_MS = 5;

/** How long nothing may be copied, and how long the guest may stand still for the last of it. */
const STALL_DEADLINE_MS = 120_000;
const PAUSE_DEADLINE_MS = 10_000;

/** A guest that writes all the time is stopped after so many looks, with at the most so much left to copy. */
const MAX_LATE_POLLS = 25;
const MOST_LEFT_BYTES = 64 * 1024 * 1024;

/** What is left free on the file system: full, it stops every guest. */
const ROOM_BYTES = 64 * 1024 * 1024;

export interface ChainProgress {
  doneBytes: number;
  sizeBytes: number;
}

export interface ChainWorkOptions {
  guest: Guest;
  disk: GuestDisk;
  plan: ChainPlan;
  rateBps: number | undefined;
  signal: AbortSignal;
  onProgress: (progress: ChainProgress) => void;
}

/** What came of it. */
export interface ChainWorkOutcome {
  copiedBytes: number;
  pauseUs?: number;
}

/**
 * Flattens or commits a disk of a guest that runs. `settleChain`, which brings it to its end however far it came, is for the caller.
 *
 *     flatten   copy ─▶ flush ─▶ note the chain ─▶ change it
 *     commit    renew the layer below ─▶ copy ─▶ stop the guest ─▶ the rest, flushed ─▶ note the chain ─▶ change it ─▶ the guest runs on
 *
 * When the chain is noted, a guest reads the same from it as from the one before, and of a commit nothing is written meanwhile: whoever is killed then loses nothing, whichever of both the emulator
 * has. Before, the chain that is noted is the one that is written.
 */
export class ChainWork {
  readonly #services: ChainServices;
  readonly #options: ChainWorkOptions;
  #copiedBytes = 0;
  #stoppedAtUs: number | undefined;
  /** What the guest's record says is on the disk. */
  isSaved = true;

  constructor(services: ChainServices, options: ChainWorkOptions) {
    this.#services = services;
    this.#options = options;
  }

  /** @throws AgentError `no-room`, `cancelled`, `timeout`, `chain-failed`; DiskError; GuestError. The guest may stand still then: `resume`. */
  async run(): Promise<ChainWorkOutcome> {
    const { guest, disk, plan, rateBps } = this.#options;
    const { jobs } = guest.live.emulator.disks;
    await this.#requireRoom(usedBytes(plan.copied));
    await writeChainWork(this.#services.paths.chainWork(guest.id), plan.record);
    if (plan.merge === undefined) {
      await jobs.stream(disk, plan.record.stages[1]?.[1], rateBps);
      await this.#until("pending");
      await this.#flush();
    } else {
      const merged = await this.#renew(plan.merge);
      await jobs.commit(merged, plan.merge.renewed, rateBps);
      await this.#until("ready");
      await this.#stop(plan.merge.renewed);
      await this.#during("ready");
      await jobs.complete(disk);
      await this.#during("pending");
    }
    await this.#note();
    await jobs.finalize(disk);
    await this.#during("concluded");
    const pauseUs = await this.resume();
    return { copiedBytes: this.#copiedBytes, ...(pauseUs === undefined ? {} : { pauseUs }) };
  }

  /** Lets the guest run on, if it was stopped for this. @returns for how long it stood still. */
  async resume(): Promise<number | undefined> {
    const stoppedAtUs = this.#stoppedAtUs;
    if (stoppedAtUs === undefined || !this.#options.guest.hasEmulator) return undefined;
    const { resumedAtUs } = await this.#options.guest.live.emulator.resume();
    this.#stoppedAtUs = undefined;
    return Math.max(0, resumedAtUs - stoppedAtUs);
  }

  /** Gives the layer that is to be written another uuid: what the old one stands for, other hosts may have. @returns the disk with it. */
  async #renew({ old, renewed, above }: NonNullable<ChainPlan["merge"]>): Promise<GuestDisk> {
    const { guest, disk, plan } = this.#options;
    const { store } = this.#services.disks;
    const { jobs } = guest.live.emulator.disks;
    const chain = plan.record.stages[1] as DiskLayer[];
    const swapped = { ...disk, chain };
    await store.renew(old.id, { as: renewed.id, writer: guest.id });
    await jobs.add(swapped, renewed, chain[chain.indexOf(renewed) + 1]);
    await syncFile(above.path);
    await whileStill(guest, async () =>
      jobs.reopen(swapped, above, { backing: renewed, readOnly: above !== chain[0] }),
    );
    await noteChain(guest, disk.name, chain);
    await store.restand(above.id, { disk: renewed.id });
    await whileStill(guest, async () => jobs.close(disk, [old]));
    await store.remove(old.id);
    await store.give(renewed.id, guest.live.isolation?.user ?? 0);
    return swapped;
  }

  /** Waits until the job has copied what there is. However long that takes, it must get on. */
  async #until(status: "pending" | "ready"): Promise<void> {
    const { clock } = this.#services;
    let pollMs = FIRST_POLL_MS;
    let movedUs = clock.nowUs();
    let firstBytes: number | undefined;
    for (let polls = 0; ;) {
      const before = this.#copiedBytes;
      const { doneBytes, totalBytes, ...state } = await this.#look();
      if (state.status === status) return;
      firstBytes ??= totalBytes;
      if (
        status === "ready" &&
        doneBytes >= firstBytes &&
        (await this.#hasLittleLeft(totalBytes - doneBytes, polls++))
      )
        return;
      if (doneBytes !== before) movedUs = clock.nowUs();
      if (clock.nowUs() - movedUs > STALL_DEADLINE_MS * 1000)
        throw new AgentError("timeout", `nothing was copied for ${STALL_DEADLINE_MS / 1000} s`);
      if (this.#options.signal.aborted) throw new AgentError("cancelled", "it was cancelled");
      await this.#requireRoom(0);
      await sleep(clock, pollMs);
      pollMs = Math.min(2 * pollMs, POLL_MS);
    }
  }

  /**
   * Everything was copied once, and the guest has written since. What it goes on writing is copied as fast as it can be, and the last of it while the guest stands still.
   * @throws AgentError `timeout` when that is too much.
   */
  async #hasLittleLeft(leftBytes: number, polls: number): Promise<boolean> {
    const { guest, disk } = this.#options;
    if (polls === 0) await guest.live.emulator.disks.jobs.hurry(disk);
    if (polls < MAX_LATE_POLLS) return false;
    if (leftBytes > MOST_LEFT_BYTES)
      throw new AgentError("timeout", `the guest writes faster than is copied: ${leftBytes} bytes are left`);
    return true;
  }

  /** Waits for what takes a moment. */
  async #during(status: "ready" | "pending" | "concluded"): Promise<void> {
    const { clock } = this.#services;
    const untilUs = clock.nowUs() + PAUSE_DEADLINE_MS * 1000;
    while ((await this.#look()).status !== status) {
      if (clock.nowUs() > untilUs)
        throw new AgentError("timeout", `the emulator's job is not ${status} after ${PAUSE_DEADLINE_MS} ms`);
      await sleep(clock, PAUSE_POLL_MS);
    }
  }

  /** @throws AgentError when the job has failed. */
  async #look(): Promise<ChainJobState> {
    const { guest, disk, onProgress } = this.#options;
    const state = await guest.live.emulator.disks.jobs.state(disk);
    if (state === undefined) throw new AgentError("chain-failed", "the emulator's job is gone");
    this.#copiedBytes = state.doneBytes;
    onProgress({ doneBytes: state.doneBytes, sizeBytes: state.totalBytes });
    if (state.error !== undefined) {
      if (state.error.includes("No space left")) throw this.#noRoom(0);
      throw new AgentError("chain-failed", `the emulator's job failed: ${state.error}`);
    }
    return state;
  }

  /** Writes to the host's disk all that was copied into the newest layer, and all it says of itself. */
  async #flush(): Promise<void> {
    const { guest, disk } = this.#options;
    const { jobs } = guest.live.emulator.disks;
    const [top, backing] = disk.chain as [DiskLayer, DiskLayer | undefined];
    await syncFile(top.path);
    await whileStill(guest, async () => jobs.reopen(disk, top, { backing, readOnly: false }));
  }

  async #stop({ path }: DiskLayer): Promise<void> {
    const { emulator } = this.#options.guest.live;
    // So that the pause need not wait for much of it.
    await syncFile(path);
    // One that a disk has stopped is let go on by who waits for that.
    if ((await emulator.status()) === "running") this.#stoppedAtUs = (await emulator.stop()).stoppedAtUs;
  }

  async #note(): Promise<void> {
    const { guest, disk, plan } = this.#options;
    const before = guest.config.disks.find(({ name }) => name === disk.name)?.chain ?? disk.chain;
    try {
      await noteChain(guest, disk.name, plan.record.stages.at(-1) as DiskLayer[]);
    } catch (error) {
      // What says so is not written then.
      this.isSaved = codeOf(error) === "no-room";
      await noteChain(guest, disk.name, before).catch((again: unknown) => {
        guest.log.warn({ problem: messageOf(again) }, "a guest's record could not be written");
      });
      throw error;
    }
  }

  /** @throws AgentError `no-room` */
  async #requireRoom(neededBytes: number): Promise<void> {
    const { bavail, bsize } = await statfs(this.#services.disks.store.directory);
    if (bavail * bsize < neededBytes + ROOM_BYTES) throw this.#noRoom(neededBytes);
  }

  #noRoom(neededBytes: number): AgentError {
    const needed = neededBytes === 0 ? "" : `${neededBytes} bytes for what is copied, and `;
    return new AgentError(
      "no-room",
      `the file system of ${this.#services.disks.store.directory} is full: it must have ${needed}${ROOM_BYTES} to spare; make room there, and try again`,
    );
  }
}

/** Brings `work` to its end, and the guest to run on. Errors as those of `settleChain`. */
export async function settleWork(services: ChainServices, guest: Guest, work: ChainWork): Promise<boolean> {
  const isDone = await settleChain(services, guest, { isSaved: work.isSaved });
  await work.resume();
  return isDone;
}
