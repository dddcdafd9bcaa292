import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { codeOf, messageOf, sleep, type Clock, type Log } from "../../base/index.js";
import { RemoteError } from "../../control/index.js";
import type { DiskArrival } from "../../disk/index.js";
import { UNFINISHED_SUFFIX, writeAtomically } from "../store/files.js";
import { holderSchema } from "../store/holder.js";

/** Pauses before a host is told again that it need not keep a disk: they double. */
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;

const noteSchema = z.strictObject({
  version: z.literal(1),
  disk: z.uuid(),
  arrival: z.strictObject({
    transfer: z.int().min(1),
    holder: holderSchema,
    url: z.string().max(255),
    host: z.string().max(255),
  }),
});

export interface BorrowingsOptions {
  /** One file for each disk and transfer. */
  directory: string;
  /** Tells a host, with a deadline, that it need not keep a disk for this one. A RemoteError other than `busy` is its last word. */
  tell(arrival: DiskArrival, disk: string): Promise<void>;
  clock: Clock;
  log: Log;
}

/**
 * Disks that other hosts keep for this one, or may come to: noted before they are asked for any, and until they were told that they need not. So nothing stays there for good because an
 * agent here ended at the wrong moment.
 */
export class Borrowings {
  readonly #options: BorrowingsOptions;
  readonly #returning = new Set<string>();
  #closed = false;

  constructor(options: BorrowingsOptions) {
    this.#options = options;
  }

  /** To be called before a host is asked. @throws AgentError `no-room`, or the file system's error. */
  async note(arrival: DiskArrival, disk: string): Promise<void> {
    await mkdir(this.#options.directory, { recursive: true, mode: 0o700 });
    const note: z.input<typeof noteSchema> = { version: 1, disk, arrival };
    await writeAtomically(this.#pathOf(arrival, disk), `${JSON.stringify(note, undefined, 2)}\n`);
  }

  /** Tells the host for as long as it takes; the next agent goes on with it. Never rejects. */
  async giveBack(arrival: DiskArrival, disk: string): Promise<void> {
    const { tell, clock, log } = this.#options;
    const path = this.#pathOf(arrival, disk);
    if (this.#returning.has(path)) return;
    this.#returning.add(path);
    for (let pauseMs = FIRST_PAUSE_MS; !this.#closed; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      try {
        await tell(arrival, disk);
        break;
      } catch (error) {
        const problem = messageOf(error);
        log.warn(
          { disk, host: arrival.host, problem },
          "a disk that is not read any more could not be given back",
        );
        if (error instanceof RemoteError && error.code !== "busy") break;
      }
      await sleep(clock, pauseMs);
    }
    this.#returning.delete(path);
    if (!this.#closed) await rm(path, { force: true }).catch((error: unknown) => this.#warn(path, error));
  }

  /** Gives back what earlier agents did not, and nobody waits for. Never rejects. */
  async goOn(isAwaited: (disk: string, arrival: DiskArrival) => boolean): Promise<void> {
    const { directory } = this.#options;
    try {
      for (const name of await readdir(directory)) {
        const path = join(directory, name);
        if (name.endsWith(UNFINISHED_SUFFIX)) await rm(path, { force: true });
        else await this.#goOnWith(path, isAwaited);
      }
    } catch (error) {
      if (codeOf(error) !== "ENOENT") this.#warn(directory, error);
    }
  }

  /** What was not given back by now is left to the next agent. */
  close(): void {
    this.#closed = true;
  }

  async #goOnWith(path: string, isAwaited: (disk: string, arrival: DiskArrival) => boolean): Promise<void> {
    try {
      const { disk, arrival } = noteSchema.parse(JSON.parse(await readFile(path, "utf8")));
      if (!isAwaited(disk, arrival)) void this.giveBack(arrival, disk);
    } catch (error) {
      this.#warn(path, error);
    }
  }

  #pathOf({ transfer }: DiskArrival, disk: string): string {
    return join(this.#options.directory, `${transfer}-${disk}.json`);
  }

  #warn(path: string, error: unknown): void {
    this.#options.log.warn({ path, problem: messageOf(error) }, "a note of a borrowed disk is left as it is");
  }
}
