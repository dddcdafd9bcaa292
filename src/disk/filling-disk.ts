import type { FileHandle } from "node:fs/promises";
import { assert, Bitmap, codeOf, deferred, messageOf, sleep, type Clock, type Timer } from "../base/index.js";
import type { BlockExtent, BlockSource } from "./block-source.js";
import { isZero, readWhole } from "./content-digest.js";
import { DiskError } from "./errors.js";
import { FillingChecks } from "./filling-checks.js";
import { BLOCK_BYTES, NOTE_EVERY_MS, ROOM_RETRY_MS } from "./filling-limits.js";
import { blockCount, FillingNotes } from "./filling-notes.js";
import { FillingSweep } from "./filling-sweep.js";
import type { Extent, FindData } from "./holes.js";

/** Where a disk under way comes from: what somebody waits for, and the rest. */
export interface FillingSources {
  urgent: BlockSource;
  bulk: BlockSource;
}

/** How far a disk under way is, for people. */
export type FillingState =
  | { phase: "filling" } // it comes, or waits for a source
  | { phase: "full" } // the file system has no room; what guests read is passed on and not kept
  | { phase: "stuck"; code: string; message: string } // its source has given up; another one may be attached
  | { phase: "damaged"; message: string } // what came is not what its digest says; nothing of it is given any more
  | { phase: "whole" }; // all of it is here, checked and safe

/**
 * A disk on its way from another host, used meanwhile. What is here is read here; what is missing is asked for at once, for whoever reads it waits; and the sweep
 * brings the rest. After a crash at any moment, what was noted is here: content is made safe before it is noted.
 */
export class FillingDisk implements BlockSource {
  readonly sizeBytes: number;
  readonly #notes: FillingNotes;
  readonly #file: FileHandle;
  readonly #clock: Clock;
  readonly #findData: FindData;
  readonly #here: Bitmap;
  readonly #checks: FillingChecks;
  readonly #urgent = new Map<number, Promise<{ firstBlock: number; bytes: Buffer }>>();
  #unnoted: number[] = [];
  #noteTimer: Timer | undefined;
  #noting: Promise<void> = Promise.resolve();
  #sweep: FillingSweep | undefined;
  #sources = deferred<FillingSources>();
  #attached: FillingSources | undefined;
  readonly #whole = deferred<void>();
  #state: FillingState = { phase: "filling" };
  #closed = false;
  #fetchedBytes = 0;
  #data: Extent | undefined;

  private constructor(notes: FillingNotes, options: { clock: Clock; findData: FindData }) {
    this.#notes = notes;
    this.#file = notes.content;
    this.sizeBytes = notes.sizeBytes;
    this.#clock = options.clock;
    this.#findData = options.findData;
    this.#here = new Bitmap(blockCount(notes.sizeBytes));
    for (const { first, count } of notes.noted.runs()) this.#here.setRun(first, count);
    const { chunks, sizeBytes, content: file } = notes;
    this.#checks = new FillingChecks(this.#here, { file, sizeBytes, chunks });
    // Whoever asks later is told; nobody has to.
    this.#whole.promise.catch(() => {});
    this.#sources.promise.catch(() => {});
  }

  /** Takes up a disk that was begun (`FillingNotes.create`). @throws DiskError `damaged`. */
  static async open(
    directory: string,
    options: { clock: Clock; findData: FindData },
  ): Promise<FillingDisk | undefined> {
    const notes = await FillingNotes.open(directory);
    return notes && new FillingDisk(notes, options);
  }

  get state(): FillingState {
    return this.#state;
  }

  /** Bytes that are here, holes with them, and bytes that came since this agent took it up. */
  get progress(): { hereBytes: number; fetchedBytes: number } {
    const hereBytes = Math.min(this.#here.count * BLOCK_BYTES, this.sizeBytes);
    return { hereBytes, fetchedBytes: this.#fetchedBytes };
  }

  /** Resolves when all of it is here, checked and safe. Rejects with DiskError `damaged` or `cancelled`. */
  get whole(): Promise<void> {
    return this.#whole.promise;
  }

  /** Fills it from here on, instead of from where it came before. */
  attach(sources: FillingSources): void {
    assert(sources.bulk.sizeBytes === this.sizeBytes, "a disk is filled with one of its size");
    if (this.#state.phase === "damaged" || this.#state.phase === "whole" || this.#closed) return;
    this.detach();
    this.#attached = sources;
    this.#sources.resolve(sources);
    const sweep = new FillingSweep({
      here: this.#here,
      source: sources.bulk,
      sizeBytes: this.sizeBytes,
      keep: (firstBlock, bytes) => this.#keepWhenRoom(firstBlock, bytes),
      keepHole: (firstBlock, count) => this.#keepHole(firstBlock, count),
    });
    this.#sweep = sweep;
    void sweep.run().then(
      () => this.#onSwept(sweep),
      (error: unknown) => this.#onTrouble(sweep, error),
    );
  }

  /** Nothing comes for now: what is asked for, and what its source has not answered, waits for another one. */
  detach(): void {
    if (this.#state.phase === "stuck") this.#state = { phase: "filling" };
    void this.#sweep?.stop();
    this.#sweep = undefined;
    if (this.#attached === undefined) return;
    this.#attached = undefined;
    this.#sources = deferred();
    this.#sources.promise.catch(() => {});
  }

  async read(offset: number, lengthBytes: number): Promise<Buffer> {
    assert(
      offset >= 0 && lengthBytes > 0 && offset + lengthBytes <= this.sizeBytes,
      "a read lies on the disk",
    );
    const into = Buffer.allocUnsafe(lengthBytes);
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((offset + lengthBytes - 1) / BLOCK_BYTES);
    const missing = this.#missingOf(first, last);
    const fetched = await Promise.all(missing.length === 0 ? [] : this.#fetch(missing));
    this.#requireUndamaged();
    await readWhole(this.#file, { path: "a disk under way", bytes: into, offset });
    // What could not be kept for want of room is not in the file.
    for (const { firstBlock, bytes } of fetched) {
      const from = Math.max(firstBlock * BLOCK_BYTES, offset);
      const start = from - firstBlock * BLOCK_BYTES;
      bytes.copy(into, from - offset, start, Math.min(bytes.length, start + lengthBytes - (from - offset)));
    }
    return into;
  }

  extents(offset: number, lengthBytes: number): Promise<BlockExtent[]> {
    const block = Math.floor(offset / BLOCK_BYTES);
    const known = this.#here.has(block);
    const change = known ? this.#here.nextClear(block) : this.#here.nextSet(block);
    const end = Math.min(change === -1 ? this.sizeBytes : change * BLOCK_BYTES, offset + lengthBytes);
    const data = known ? this.#dataAt(offset) : { start: offset, end };
    if (data === undefined || data.start >= end) return one(end - offset, true);
    if (data.start > offset) return one(data.start - offset, true);
    return one(Math.min(data.end, end) - offset, false);
  }

  /** Stops; what has come is noted. Reads that wait are refused. May be called twice. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const gone = new DiskError("cancelled", "the disk under way is not filled any more");
    this.#sources.reject(gone);
    this.#whole.reject(gone);
    await this.#sweep?.stop();
    await Promise.allSettled(this.#urgent.values());
    this.#noteTimer?.cancel();
    await this.#note();
    await this.#notes.close();
  }

  /** What is data here stays it; to find an end of it, the file system looks through all of it. */
  #dataAt(offset: number): Extent | undefined {
    const found = this.#data;
    if (found !== undefined && offset >= found.start && offset < found.end)
      return { start: offset, end: found.end };
    this.#data = this.#findData(this.#file.fd, offset);
    return this.#data;
  }

  #missingOf(first: number, last: number): number[] {
    const missing: number[] = [];
    for (let block = this.#here.nextClear(first); block !== -1 && block <= last;) {
      missing.push(block);
      block = this.#here.nextClear(block + 1);
    }
    return missing;
  }

  /** One read for each run of blocks that nobody has asked for urgently by now. */
  #fetch(missing: readonly number[]): Promise<{ firstBlock: number; bytes: Buffer }>[] {
    const fetches = new Set<Promise<{ firstBlock: number; bytes: Buffer }>>();
    for (let index = 0; index < missing.length;) {
      const first = missing[index] as number;
      const asked = this.#urgent.get(first);
      let count = 1;
      if (asked !== undefined) fetches.add(asked);
      else {
        while (missing[index + count] === first + count && !this.#urgent.has(first + count)) count += 1;
        const fetch = this.#fetchRun(first, count);
        for (let block = first; block < first + count; block += 1) this.#urgent.set(block, fetch);
        fetches.add(fetch);
      }
      index += count;
    }
    this.#sweep?.steer((missing.at(-1) as number) + 1);
    return [...fetches];
  }

  async #fetchRun(firstBlock: number, count: number): Promise<{ firstBlock: number; bytes: Buffer }> {
    try {
      const bytes = await this.#bring(firstBlock, count);
      try {
        await this.#keep(firstBlock, bytes);
      } catch (error) {
        if (!isNoRoom(error)) throw error;
        if (this.#state.phase === "filling") this.#state = { phase: "full" };
      }
      return { firstBlock, bytes };
    } finally {
      for (let block = firstBlock; block < firstBlock + count; block += 1) this.#urgent.delete(block);
    }
  }

  /** What one source does not answer because it is lost, the next one is asked for. */
  async #bring(firstBlock: number, count: number): Promise<Buffer> {
    const offset = firstBlock * BLOCK_BYTES;
    const length = Math.min(count * BLOCK_BYTES, this.sizeBytes - offset);
    for (;;) {
      const sources = await this.#sources.promise;
      try {
        return await sources.urgent.read(offset, length);
      } catch (error) {
        if (this.#closed || this.#attached === sources) throw error;
      }
    }
  }

  /** Writes what is not here; zeros stay holes. Two that bring the same bring the same bytes. */
  async #keep(firstBlock: number, bytes: Buffer): Promise<void> {
    this.#requireUndamaged();
    const count = Math.ceil(bytes.length / BLOCK_BYTES);
    for (let index = 0; index < count; index += 1) {
      if (this.#here.has(firstBlock + index)) continue;
      const block = bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
      if (!isZero(block)) {
        this.#checks.write(firstBlock + index);
        await writeWhole(this.#file, block, (firstBlock + index) * BLOCK_BYTES);
      }
      if (!this.#here.set(firstBlock + index)) continue;
      this.#fetchedBytes += block.length;
      this.#unnoted.push(firstBlock + index);
    }
    await this.#kept(firstBlock, count);
  }

  async #keepHole(firstBlock: number, count: number): Promise<void> {
    for (let block = firstBlock; block < firstBlock + count; block += 1)
      if (this.#here.set(block)) this.#unnoted.push(block);
    await this.#kept(firstBlock, count);
  }

  async #keepWhenRoom(firstBlock: number, bytes: Buffer): Promise<void> {
    for (;;) {
      try {
        await this.#keep(firstBlock, bytes);
        if (this.#state.phase === "full") this.#state = { phase: "filling" };
        return;
      } catch (error) {
        if (!isNoRoom(error) || this.#closed) throw error;
        this.#state = { phase: "full" };
        await this.#waitForRoom();
      }
    }
  }

  /** An agent that stops does not wait for it. */
  async #waitForRoom(): Promise<void> {
    await Promise.race([sleep(this.#clock, ROOM_RETRY_MS), this.#whole.promise.catch(() => {})]);
  }

  async #kept(firstBlock: number, count: number): Promise<void> {
    this.#noteTimer ??= this.#clock.after(NOTE_EVERY_MS, () => {
      this.#noteTimer = undefined;
      void this.#note();
    });
    try {
      await this.#checks.check(firstBlock, count);
    } catch (error) {
      this.#onDamage(error);
      throw error;
    }
  }

  /** Notes what has come and was not found wrong; one after the other. Never rejects: what is not noted comes again. */
  #note(): Promise<void> {
    this.#noting = this.#noting.then(async () => {
      if (this.#state.phase === "damaged") return;
      const ready = this.#unnoted.filter((block) => !this.#checks.isOpen(block));
      this.#unnoted = this.#unnoted.filter((block) => this.#checks.isOpen(block));
      try {
        await this.#notes.note(ready);
        if (ready.length > 0 && this.#state.phase === "full") this.#state = { phase: "filling" };
      } catch (error) {
        this.#unnoted.push(...ready);
        if (isNoRoom(error)) this.#state = { phase: "full" };
        else this.#state = { phase: "stuck", code: codeOf(error), message: messageOf(error) };
      }
    });
    return this.#noting;
  }

  /** The sweep has found everything here; what was asked for urgently may still be on its way into the file. */
  async #onSwept(sweep: FillingSweep): Promise<void> {
    await Promise.allSettled(this.#urgent.values());
    for (;;) {
      if (this.#sweep !== sweep || this.#closed || this.#here.count < this.#here.length) return;
      await this.#note();
      if (this.#notes.noted.count === this.#here.length) break;
      if (this.#state.phase !== "full") return;
      await this.#waitForRoom();
    }
    this.#state = { phase: "whole" };
    this.#whole.resolve();
  }

  #onTrouble(sweep: FillingSweep, error: unknown): void {
    if (this.#sweep !== sweep || this.#closed || this.#state.phase === "damaged") return;
    this.#state = { phase: "stuck", code: codeOf(error), message: messageOf(error) };
  }

  #onDamage(error: unknown): void {
    if (this.#state.phase === "damaged") return;
    this.#state = { phase: "damaged", message: messageOf(error) };
    this.#whole.reject(error as Error);
    void this.#sweep?.stop();
  }

  #requireUndamaged(): void {
    if (this.#state.phase === "damaged") throw new DiskError("damaged", this.#state.message);
  }
}

function one(lengthBytes: number, hole: boolean): Promise<BlockExtent[]> {
  return Promise.resolve([{ lengthBytes, hole }]);
}

function isNoRoom(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT"].includes(codeOf(error));
}

async function writeWhole(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += (await file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
  }
}
