import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Clock, Log } from "../../base/index.js";
import { CopiesFile, GuestMemory, RehearsalProcess } from "../../memory/index.js";
import { SharedMemory } from "../../transfer/index.js";
import { COPIES_NAME } from "../store/paths.js";
import { FileNotes } from "../transfers/child-notes.js";

/** Two processes in the place of a parent's and a child's emulator, and a directory for what an agent keeps beside a guest's memory. */
export class Stage {
  readonly pageCount: number;
  readonly parent: RehearsalProcess;
  readonly child: RehearsalProcess;
  /** The parent's memory, as that of a guest that children may share. */
  readonly parentMemory: SharedMemory;
  readonly childMemory: GuestMemory;
  readonly #memory: GuestMemory;
  readonly #directory: string;
  #closed = false;

  private constructor(options: {
    processes: readonly [RehearsalProcess, RehearsalProcess];
    directory: string;
    clock: Clock;
    log: Log;
  }) {
    const { directory, clock, log } = options;
    const [parent, child] = options.processes;
    this.parent = parent;
    this.child = child;
    this.#directory = directory;
    this.#memory = GuestMemory.open({ ...parent, log });
    this.childMemory = GuestMemory.open({ ...child, log });
    this.parentMemory = new SharedMemory({ memory: this.#memory.tracked(), clock, log });
    this.pageCount = this.#memory.pageCount;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  /** @throws MemoryError; nothing is left then. */
  static async open(options: {
    pageCount: number;
    directory: string;
    clock: Clock;
    log: Log;
  }): Promise<Stage> {
    const started = await Promise.allSettled([
      RehearsalProcess.start(options.pageCount, options.clock),
      RehearsalProcess.start(options.pageCount, options.clock),
    ]);
    try {
      const [parent, child] = started.map((result) => {
        if (result.status === "rejected") throw result.reason;
        return result.value;
      }) as [RehearsalProcess, RehearsalProcess];
      return new Stage({ ...options, processes: [parent, child] });
    } catch (error) {
      for (const result of started) if (result.status === "fulfilled") result.value.end();
      throw error;
    }
  }

  /** What keeps copies of the parent's pages, for one transfer. */
  copies(): CopiesFile {
    return CopiesFile.create(join(this.#directory, COPIES_NAME), this.pageCount);
  }

  /** What is noted of the child, for one transfer. */
  notes(): FileNotes {
    return new FileNotes(this.#directory, { pageCount: this.pageCount, verify: false, recover: false });
  }

  /** A descriptor of the parent's memory file, which whoever is given it closes. */
  shareFile(): number | undefined {
    return this.#closed ? undefined : this.#memory.shareFile();
  }

  /** Ends both processes, whatever they wait for. May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.parent.end();
    this.child.end();
    this.#memory.close();
    this.childMemory.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
