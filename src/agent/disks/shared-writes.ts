import { randomUUID } from "node:crypto";
import { codeOf, messageOf, type Clock, type Log, type Timer } from "../../base/index.js";
import { DiskError, markShared, requireShared, type SharedMark } from "../../disk/index.js";
import type { Services } from "../services.js";
import { bringHome } from "./home-coming.js";

/** How often it is looked whether what a guest writes may be brought home, and how long is waited at the most when that failed. */
const LOOK_INTERVAL_MS = 1000;
const LONGEST_PAUSE_MS = 30_000;

/** After how long a copy that does not get on says so. It is not given up: whoever waits for a file system that does not answer holds a thread of the pool, and each further try would hold another. */
const STALL_MS = 120_000;

/** How far what a guest wrote is brought home. */
export interface HomeComing {
  hereBytes: number;
  fileBytes: number;
  /** Why it does not get on. */
  message?: string;
}

/** What the host a guest goes to is told: where it may write, and how that is seen to be the same directory. */
export interface SharedOffer {
  directory: string;
  mark: SharedMark;
}

type HomeServices = Pick<Services, "disks" | "registry" | "log">;

/**
 * Directories that several hosts have, where a migrated guest writes until all of it is on its new host: should that be lost before, what the guest wrote is not. Only those that the
 * configuration names: a peer names none of its own.
 */
export class SharedWrites {
  readonly #directories: readonly string[];
  readonly #host: { id: string; name: string };
  readonly #clock: Clock;
  readonly #log: Log;
  /** Another one with each agent: what a directory says of an earlier time does not count. */
  readonly #token = randomUUID();
  #services: HomeServices | undefined;
  #timer: Timer | undefined;
  #pauseMs = LOOK_INTERVAL_MS;
  readonly #closing = new AbortController();
  /** What is being copied, or was last. */
  #copying: { disk: string; hereBytes: number; fileBytes: number; movedUs: number } | undefined;
  #isCopying = false;
  /** Why it was not brought home when that was tried last. */
  #problem: string | undefined;

  constructor(options: {
    directories: readonly string[];
    host: { id: string; name: string };
    clock: Clock;
    log: Log;
  }) {
    this.#directories = options.directories;
    this.#host = options.host;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Has another host see that both have a directory. @throws DiskError `not-shared`. */
  async offer(directory: string): Promise<SharedOffer> {
    this.requireConfigured(directory);
    const mark = { host: this.#host.id, token: this.#token };
    await markShared(directory, mark);
    return { directory, mark };
  }

  /** @throws DiskError `not-shared` when another host's directory is not one of this host's. */
  async require({ directory, mark }: SharedOffer): Promise<void> {
    this.requireConfigured(directory);
    await requireShared(directory, mark);
    this.look();
  }

  /** @throws DiskError `not-shared`. */
  requireConfigured(directory: string): void {
    if (this.#directories.includes(directory)) return;
    const known = this.#directories.length === 0 ? "none" : this.#directories.join(", ");
    throw new DiskError(
      "not-shared",
      `${directory} is not among the directories that ${this.#host.name} shares with others (${known}): \`sharedDirectories\` in its agent's configuration names them`,
    );
  }

  /** From here on there are guests: what an earlier agent did not bring home is brought. */
  connect(services: HomeServices): void {
    this.#services = services;
    this.look();
  }

  /** Looks after what is shared, until nothing is. */
  look(): void {
    if (this.#closing.signal.aborted || this.#timer !== undefined || this.#services === undefined) return;
    this.#timer = this.#clock.after(this.#pauseMs, () => void this.#look());
  }

  /** How far a disk is that lies where hosts share it; undefined when it is not to come home yet. */
  progressOf(disk: string): HomeComing | undefined {
    const copying = this.#copying?.disk === disk ? this.#copying : undefined;
    const stalledMs = copying === undefined ? 0 : (this.#clock.nowUs() - copying.movedUs) / 1000;
    const message =
      this.#isCopying && stalledMs > STALL_MS
        ? `nothing was copied for ${Math.floor(stalledMs / 1000)} seconds; the directory's file system does not answer, or this host's`
        : this.#problem;
    if (copying === undefined && message === undefined) return undefined;
    const { hereBytes = 0, fileBytes = 0 } = copying ?? {};
    return { hereBytes, fileBytes, ...(message === undefined ? {} : { message: message.slice(0, 500) }) };
  }

  #note(disk: string, hereBytes: number, fileBytes: number): void {
    this.#copying = { disk, hereBytes, fileBytes, movedUs: this.#clock.nowUs() };
  }

  /** What is not home by now is left to the next agent. */
  close(): void {
    this.#closing.abort();
    this.#timer?.cancel();
  }

  /** Never rejects. */
  async #look(): Promise<void> {
    const services = this.#services;
    const { signal } = this.#closing;
    if (services === undefined || signal.aborted) return;
    try {
      this.#isCopying = true;
      await bringHome(services, { signal, onProgress: (...progress) => this.#note(...progress) });
      this.#problem = undefined;
      this.#pauseMs = LOOK_INTERVAL_MS;
    } catch (error) {
      if (signal.aborted) return;
      this.#problem = `${messageOf(error)} (${codeOf(error)})`;
      this.#log.warn(
        { code: codeOf(error), problem: messageOf(error) },
        "what a guest writes is not brought home yet",
      );
      this.#pauseMs = Math.min(2 * this.#pauseMs, LONGEST_PAUSE_MS);
    }
    this.#isCopying = false;
    this.#timer = undefined;
    if (services.disks.store.list().some(({ sharedAt }) => sharedAt !== undefined)) this.look();
  }
}
