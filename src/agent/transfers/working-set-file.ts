import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { codeOf, messageOf, type Clock, type Log, type Timer } from "../../base/index.js";
import { WorkingSet } from "../../transfer/index.js";
import { UNFINISHED_SUFFIX } from "../store/files.js";

/** How long what was learnt may be in this agent alone. */
const SAVE_AFTER_MS = 2000;

/**
 * A guest's working set in a file beside its memory, for the next fork and the next agent. It makes children faster and no more, so whatever goes wrong with
 * the file is noted in the log, and the set goes on without it.
 */
export class WorkingSetFile {
  readonly set: WorkingSet;
  readonly #path: string;
  readonly #clock: Clock;
  readonly #log: Log;
  #save: Timer | undefined;
  #closed = false;

  constructor(options: { path: string; pageCount: number; clock: Clock; log: Log }) {
    const { path, pageCount, clock, log } = options;
    this.#path = path;
    this.#clock = clock;
    this.#log = log;
    const encoded = this.#read();
    const onChange = (): void => this.#saveLater();
    this.set = new WorkingSet({ pageCount, clock, onChange, ...(encoded === undefined ? {} : { encoded }) });
  }

  /** Writes what is not written yet; nothing is kept of what is learnt later. May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#save === undefined) return;
    this.#save.cancel();
    this.#write();
  }

  #saveLater(): void {
    if (this.#closed) return;
    this.#save ??= this.#clock.after(SAVE_AFTER_MS, () => {
      this.#save = undefined;
      this.#write();
    });
  }

  #read(): Uint8Array | undefined {
    try {
      return readFileSync(this.#path);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") this.#warn("a guest's working set cannot be read", error);
      return undefined;
    }
  }

  #write(): void {
    const unfinished = `${this.#path}${UNFINISHED_SUFFIX}`;
    try {
      writeFileSync(unfinished, this.set.encode(), { mode: 0o600 });
      renameSync(unfinished, this.#path);
    } catch (error) {
      rmSync(unfinished, { force: true });
      // With the guest its directory goes.
      if (codeOf(error) !== "ENOENT") this.#warn("a guest's working set cannot be written", error);
    }
  }

  #warn(what: string, error: unknown): void {
    this.#log.warn({ problem: messageOf(error) }, what);
  }
}
