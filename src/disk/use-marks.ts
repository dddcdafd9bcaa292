import { messageOf, type Clock, type Log } from "../base/index.js";
import type { ImageFiles } from "./image-files.js";
import { isMissing, markRecord, readRecord, recordsIn, writeRecord } from "./image-files.js";

/** Who an agent is to those it shares a directory with: `id` is its own for ever, `name` is for people. */
export interface HostMark {
  id: string;
  name: string;
}

/** What is known of an image's use by all who share its directory. */
export interface Use {
  /** Other hosts that use it, or whose marks cannot be read; by name. */
  otherHosts: string[];
  /** Tenants with chains over it, on any host. */
  tenants: Set<string>;
  /** When any host was last known to use it, in milliseconds since 1970; 0 when none ever did. */
  lastMs: number;
}

interface Used {
  files: ImageFiles;
  /** How many uses each tenant has. */
  users: Map<string, number>;
  /** Tenants as the file has them; undefined when it is not known what it says. */
  written: readonly string[] | undefined;
  /** The writing that is under way, and what waits for it. */
  turn: Promise<void>;
}

/**
 * What this host uses, in the images' own directories, where others that share them see it. A mark outlives the agent: after a crash the image counts
 * as used until `settle`. Taking waits for the mark to be durable; letting go does not wait, for a mark that stays too long only keeps a file.
 */
export class UseMarks {
  readonly #host: HostMark;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #used = new Map<string, Used>();
  readonly #writing = new Set<Promise<void>>();

  constructor(options: { host: HostMark; clock: Clock; log: Log }) {
    this.#host = options.host;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Whether this host uses an image, since this agent was started. */
  has(digest: string, tenant?: string): boolean {
    const used = this.#used.get(digest);
    return used !== undefined && (tenant === undefined ? used.users.size > 0 : used.users.has(tenant));
  }

  /** Of an image that has been removed: another one of that digest begins anew. */
  forget(digest: string): void {
    this.#used.delete(digest);
  }

  /** Counts a use; the mark is there when it returns. @throws when it cannot be written, ENOENT where the image has gone: nothing is counted then. */
  async take(files: ImageFiles, digest: string, tenant: string): Promise<() => void> {
    let used = this.#used.get(digest);
    if (used === undefined) {
      used = { files, users: new Map(), written: undefined, turn: Promise.resolve() };
      this.#used.set(digest, used);
    }
    if (used.files.directory !== files.directory) {
      used.files = files;
      used.written = undefined;
    }
    used.users.set(tenant, (used.users.get(tenant) ?? 0) + 1);
    let held = true;
    const letGo = (): void => {
      if (!held) return;
      held = false;
      this.#drop(digest, used, tenant);
    };
    try {
      await this.#write(used, { orMore: true });
    } catch (error) {
      letGo();
      throw error;
    }
    return letGo;
  }

  /** Puts a mark into an image that is not yet where others see it. */
  async place(files: ImageFiles, tenant: string): Promise<void> {
    await this.#writeMark(files, [tenant]);
  }

  /** What everybody's marks say; this host's own counts as what it uses now. */
  async useOf(files: ImageFiles, digest: string): Promise<Use> {
    const use: Use = { otherHosts: [], tenants: new Set(this.#used.get(digest)?.users.keys()), lastMs: 0 };
    for (const name of await recordsIn(files.hosts)) {
      const id = name.slice(0, -".json".length);
      const mark = await readRecord(files.host(id), markRecord);
      if (mark === undefined) {
        use.otherHosts.push(id);
        continue;
      }
      use.lastMs = Math.max(use.lastMs, mark.atMs);
      const counts = id !== this.#host.id || this.#used.get(digest) === undefined;
      if (counts) for (const tenant of mark.usedBy) use.tenants.add(tenant);
      if (mark.usedBy.length > 0 && id !== this.#host.id) use.otherHosts.push(mark.host);
    }
    return use;
  }

  /** Whether this host's own mark says that a former agent used it, and nobody of this one does. */
  async isLeftOver(files: ImageFiles, digest: string): Promise<boolean> {
    if (this.#used.has(digest)) return false;
    const mark = await readRecord(files.host(this.#host.id), markRecord);
    return mark !== undefined && mark.usedBy.length > 0;
  }

  /** Says that what was used by a former agent and is not by this one is not used from now on. */
  async settle(files: ImageFiles, digest: string): Promise<void> {
    const used = this.#used.get(digest);
    if (used !== undefined) await this.#write(used);
    else if (await this.isLeftOver(files, digest)) await this.#writeMark(files, []);
  }

  /** Waits for what is being written. */
  async close(): Promise<void> {
    await Promise.all(this.#writing);
  }

  #drop(digest: string, used: Used, tenant: string): void {
    const left = (used.users.get(tenant) ?? 1) - 1;
    if (left > 0) return void used.users.set(tenant, left);
    used.users.delete(tenant);
    const writing = this.#write(used).catch((error: unknown) => {
      if (isMissing(error)) return;
      this.#log.warn({ digest, problem: messageOf(error) }, "that an image is not used could not be noted");
    });
    this.#writing.add(writing);
    void writing.finally(() => this.#writing.delete(writing));
  }

  /**
   * One after the other for each image; what came meanwhile is in the next.
   * @param options.orMore a mark that says more will do. That of a former agent does: what this one takes over is used also where the file system has no room for another mark.
   */
  #write(used: Used, { orMore = false } = {}): Promise<void> {
    const writing = used.turn
      .catch(() => {})
      .then(async () => {
        const tenants = [...used.users.keys()].sort();
        if (orMore) used.written ??= await this.#readMark(used.files);
        const { written } = used;
        const isNoted = written !== undefined && tenants.every((tenant) => written.includes(tenant));
        if (isNoted && (orMore || written.length === tenants.length)) return;
        used.written = undefined;
        await this.#writeMark(used.files, tenants);
        used.written = tenants;
      });
    used.turn = writing.catch(() => {});
    return writing;
  }

  async #readMark(files: ImageFiles): Promise<readonly string[] | undefined> {
    return (await readRecord(files.host(this.#host.id), markRecord))?.usedBy;
  }

  async #writeMark(files: ImageFiles, usedBy: string[]): Promise<void> {
    const mark = { version: 1, host: this.#host.name, usedBy, atMs: this.#clock.wallMs() };
    await writeRecord(files.host(this.#host.id), mark);
  }
}
