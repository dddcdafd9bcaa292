import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import { messageOf, type Clock, type Log, type Timer } from "../../base/index.js";
import type { GuestEvent } from "../../guest/index.js";
import type { Guest } from "../guests/guest.js";

/** How often it is looked whether there is room again, and how much there must be. */
const ROOM_POLL_MS = 1000;
const ROOM_BYTES = 32 * 1024 * 1024;

/**
 * When a guest is let try again whose disk failed otherwise: soon, for most of what passes has passed then; twice as late each time that it fails again, up to
 * the last; and as at first when nothing failed for some time.
 */
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 30_000;
const FORGOTTEN_AFTER_MS = 2 * LAST_RETRY_MS;

/** QEMU's event of a request that failed. With the action `stop` it was kept, and the guest stopped; it is done again when that goes on. */
const eventSchema = z.looseObject({
  action: z.string(),
  "node-name": z.string().optional(),
  nospace: z.boolean().optional(),
  reason: z.string().optional(),
});

/** A guest that stands still because of a disk. */
interface Stopped {
  /** Whose file system is full; undefined when the disk failed otherwise. */
  full: string | undefined;
  timer: Timer;
}

/** How the message of a guest begins that stands still because of a disk. */
const MESSAGE = "stopped by a disk";

/** Whether a guest stands still because the host failed one of its disks. */
export function isStoppedByDisk({ state, record }: Guest): boolean {
  return state === "paused" && record.message?.startsWith(MESSAGE) === true;
}

/** Whether a guest that a disk stopped may be let go on when there is room: others may have stopped it since, such as a template's freeze or the lease of a child. */
function mayGoOn(guest: Guest): boolean {
  // A child is occupied by its own transfer, and what that is at, it says itself.
  if (guest.state === "receiving") return guest.isHeld?.() !== true;
  return guest.occupation === undefined;
}

/**
 * Guests that were stopped because the host could not read or write one of their disks. Nothing of theirs is lost: the request that failed waits in the emulator. They go on by
 * themselves: at a full file system as soon as there is room, else now and then.
 */
export class DiskTrouble {
  readonly #directory: string;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #stopped = new Map<Guest, Stopped>();
  /** How late each guest whose disk failed was let try again, and when. */
  readonly #tried = new WeakMap<Guest, { delayMs: number; atUs: number }>();

  /** @param options.directory of the disks. */
  constructor(options: { directory: string; clock: Clock; log: Log }) {
    this.#directory = options.directory;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** To be called with every event of a guest that has disks. */
  note(guest: Guest, event: GuestEvent): void {
    if (event.name !== "BLOCK_IO_ERROR") return;
    const parsed = eventSchema.safeParse(event.data);
    if (!parsed.success || parsed.data.action !== "stop") return;
    const { reason = "an error", nospace: isFull = false } = parsed.data;
    const disk = parsed.data["node-name"]?.split("-")[0] ?? "a disk";
    const full = isFull ? (writtenIn(guest, disk) ?? this.#directory) : undefined;
    const cure =
      full !== undefined
        ? `the file system of ${full} is full; it goes on by itself when there is room`
        : `${reason}; it is let try again, after ${LAST_RETRY_MS / 1000} seconds at the most`;
    // Several requests fail at once, and tell one by one.
    if (!this.#stopped.has(guest)) guest.log.warn({ disk, reason }, "a guest was stopped by its disk");
    this.#wait(guest, full);
    const message = `${MESSAGE}: ${disk}: ${cure}`;
    if (guest.state === "running" || guest.state === "paused") guest.note({ state: "paused", message });
    if (guest.state === "receiving") guest.note({ message });
  }

  /** No guest is let go on any more. */
  close(): void {
    for (const { timer } of this.#stopped.values()) timer.cancel();
    this.#stopped.clear();
  }

  #wait(guest: Guest, full: string | undefined): void {
    this.#stopped.get(guest)?.timer.cancel();
    const timer = this.#clock.after(full !== undefined ? ROOM_POLL_MS : this.#retryMs(guest), () => {
      this.#tryAgain(guest, full).catch((error: unknown) => {
        this.#log.warn({ guest: guest.name, problem: messageOf(error) }, "a stopped guest could not go on");
        if (this.#stopped.has(guest)) this.#wait(guest, full);
      });
    });
    this.#stopped.set(guest, { full, timer });
  }

  #retryMs(guest: Guest): number {
    const { delayMs, atUs } = this.#tried.get(guest) ?? { delayMs: 0, atUs: 0 };
    const isForgotten = this.#clock.nowUs() - atUs > FORGOTTEN_AFTER_MS * 1000;
    return isForgotten ? FIRST_RETRY_MS : Math.min(LAST_RETRY_MS, Math.max(FIRST_RETRY_MS, 2 * delayMs));
  }

  async #tryAgain(guest: Guest, full: string | undefined): Promise<void> {
    // It was ended, or something else has stopped it since. A child that came to be complete meanwhile is said to run.
    const isOurs = isStoppedByDisk(guest) || guest.state === "receiving" || guest.state === "running";
    if (!guest.hasEmulator || !isOurs) return void this.#stopped.delete(guest);
    if (!mayGoOn(guest) || (full !== undefined && !(await hasRoom(full)))) return this.#wait(guest, full);
    this.#stopped.delete(guest);
    if ((await guest.live.emulator.status()) !== "paused") return;
    // Before it goes on: what fails again is told after this.
    await guest.update({ state: guest.state === "receiving" ? "receiving" : "running" });
    // It may have been told meanwhile that its parent runs on in its place.
    if (!mayGoOn(guest)) return this.#wait(guest, full);
    if (full === undefined)
      this.#tried.set(guest, { delayMs: this.#retryMs(guest), atUs: this.#clock.nowUs() });
    await guest.live.emulator.resume();
    guest.log.info({}, "a guest goes on that was stopped by its disk");
  }
}

async function hasRoom(directory: string): Promise<boolean> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize >= ROOM_BYTES;
}

/** The directory of disks in which a guest's disk is written: perhaps one that hosts share. */
function writtenIn({ config }: Guest, disk: string): string | undefined {
  const path = config.disks.find(({ name }) => name === disk)?.chain[0]?.path;
  return path === undefined ? undefined : dirname(dirname(path));
}
