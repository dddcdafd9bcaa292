import type { FileHandle } from "node:fs/promises";
import { assert, Bitmap, codeOf, deferred, messageOf, sleep, type Clock, type Timer } from "../base/index.js";
import { oneOf, type BlockExtent, type BlockSource } from "./block-source.js";
import { isZero, readWhole } from "./content-digest.js";
import { DiskError, isNoRoom } from "./errors.js";
import { FillingChecks } from "./filling-checks.js";
import { coversBlock, FillingFetches, type Fetched } from "./filling-fetches.js";
import { BLOCK_BYTES, NOTE_EVERY_MS, ROOM_RETRY_MS } from "./filling-limits.js";
import { blockCount, FillingNotes } from "./filling-notes.js";
import type { FillingSources, FillingState } from "./filling-state.js";
import { clearStale } from "./filling-zeros.js";
import { FillingSweep } from "./filling-sweep.js";
import type { Extent, FindData } from "./holes.js";
import { writeWhole } from "./write-whole.js";

export interface FillingDiskOptions {
  clock: Clock;
  findData: FindData;
  /**
   * Called when a chunk that came is not what it must be. True: it is thrown away, and comes again once another source is attached; readers wait. Otherwise nothing of
   * the disk is given any more.
   */
  onDamage?: (why: DiskError) => boolean;
}

/**
 * A disk on its way from another host, used meanwhile. What is here is read here; what is missing is asked for at once, for whoever reads it waits; and the sweep
 * brings the rest. After a crash at any moment, what was noted is here: content is made safe before it is noted. Where it is known what each chunk must be, nothing of a
 * chunk is given before all of it is here and was found right.
 */
export class FillingDisk implements BlockSource {
  readonly sizeBytes: number;
  readonly #notes: FillingNotes;
  readonly #file: FileHandle;
  readonly #clock: Clock;
  readonly #findData: FindData;
  readonly #here: Bitmap;
  readonly #checks: FillingChecks;
  readonly #fetches: FillingFetches;
  readonly #goesOnAfter: (why: DiskError) => boolean;
  #unnoted: number[] = [];
  #noteTimer: Timer | undefined;
  #noting: Promise<void> = Promise.resolve();
  #sweep: FillingSweep | undefined;
  /** What sweeps have brought, those that were stopped included, and is on its way into the file or being looked at. */
  readonly #keeping = new Set<Promise<void>>();
  #sources = deferred<FillingSources>();
  #attached: FillingSources | undefined;
  readonly #whole = deferred<void>();
  #state: FillingState = { phase: "filling" };
  #closed = false;
  #fetchedBytes = 0;
  #data: Extent | undefined;

  private constructor(notes: FillingNotes, options: FillingDiskOptions) {
    this.#goesOnAfter = options.onDamage ?? (() => false);
    this.#notes = notes;
    this.#file = notes.content;
    this.sizeBytes = notes.sizeBytes;
    this.#clock = options.clock;
    this.#findData = options.findData;
    this.#here = new Bitmap(blockCount(notes.sizeBytes));
    for (const { first, count } of notes.noted.runs()) this.#here.setRun(first, count);
    const { chunks, sizeBytes, content: file } = notes;
    this.#checks = new FillingChecks(this.#here, { file, sizeBytes, chunks });
    this.#fetches = new FillingFetches({
      here: this.#here,
      bring: (firstBlock, count) => this.#bring(firstBlock, count),
      keep: (firstBlock, bytes) => this.#keepFetched(firstBlock, bytes),
    });
    // Whoever asks later is told; nobody has to.
    this.#whole.promise.catch(() => {});
    this.#sources.promise.catch(() => {});
  }

  /** Takes up a disk that was begun (`FillingNotes.create`). @throws DiskError `damaged`. */
  static async open(directory: string, options: FillingDiskOptions): Promise<FillingDisk | undefined> {
    const notes = await FillingNotes.open(directory);
    return notes && new FillingDisk(notes, options);
  }

  /** Digests of the chunks it must come to; undefined when nobody knows them. */
  get chunks(): Uint8Array | undefined {
    return this.#notes.chunks;
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
    if (this.#isDamaged || this.#state.phase === "whole" || this.#closed) return;
    this.detach();
    this.#attached = sources;
    this.#sources.resolve(sources);
    const sweep: FillingSweep = new FillingSweep({
      here: this.#here,
      source: sources.bulk,
      sizeBytes: this.sizeBytes,
      keep: (firstBlock, bytes) => this.#takeFrom(sweep, () => this.#keepWhenRoom(firstBlock, bytes)),
      keepHole: (firstBlock, count) => this.#takeFrom(sweep, () => this.#keepHole(firstBlock, count)),
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
    const fetched = await this.#have(first, last);
    this.#requireUndamaged();
    await readWhole(this.#file, { path: "a disk under way", bytes: into, offset });
    // What could not be kept for want of room is not in the file.
    for (const { firstBlock, bytes } of fetched) {
      const from = Math.max(firstBlock * BLOCK_BYTES, offset);
      const start = from - firstBlock * BLOCK_BYTES;
      const end = Math.min(bytes.length, start + lengthBytes - (from - offset));
      if (end > start) bytes.copy(into, from - offset, start, end);
    }
    return into;
  }

  extents(offset: number, lengthBytes: number): Promise<BlockExtent[]> {
    const block = Math.floor(offset / BLOCK_BYTES);
    const open = this.#checks.unsettled(block);
    // Nobody is told that there is nothing where that was not found right.
    if (open !== undefined)
      return oneOf(Math.min((open.first + open.count) * BLOCK_BYTES, offset + lengthBytes) - offset, false);
    const known = this.#here.has(block);
    const change = known ? this.#here.nextClear(block) : this.#here.nextSet(block);
    const end = Math.min(change === -1 ? this.sizeBytes : change * BLOCK_BYTES, offset + lengthBytes);
    const data = known ? this.#dataAt(offset) : { start: offset, end };
    if (data === undefined || data.start >= end) return oneOf(end - offset, true);
    if (data.start > offset) return oneOf(data.start - offset, true);
    return oneOf(Math.min(data.end, end) - offset, false);
  }

  /** Stops; what has come is noted. Reads that wait are refused. May be called twice. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const gone = new DiskError("cancelled", "the disk under way is not filled any more");
    this.#sources.reject(gone);
    this.#whole.reject(gone);
    await this.#sweep?.stop();
    await this.#settled();
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

  /** Has blocks be here, or at hand, and right as far as that can be told. @returns what was brought for that. */
  async #have(first: number, last: number): Promise<Fetched[]> {
    if (this.chunks === undefined) return this.#fetches.bring(first, last);
    const parts: Promise<Fetched[]>[] = [];
    for (let block = first; block <= last;) {
      const chunk = this.#checks.unsettled(block);
      if (chunk !== undefined) parts.push(this.#haveChunk(chunk));
      block = chunk === undefined ? block + 1 : chunk.first + chunk.count;
    }
    return (await Promise.all(parts)).flat();
  }

  async #haveChunk({ first, count }: { first: number; count: number }): Promise<Fetched[]> {
    for (;;) {
      try {
        const fetched = await this.#fetches.bring(first, first + count - 1);
        this.#requireUndamaged();
        const missing = this.#fetches.missing(first, first + count - 1);
        const isCovered = missing.every((block) => fetched.some((each) => coversBlock(each, block)));
        // What another reader, or the sweep, has thrown away meanwhile is brought again.
        if (!isCovered) continue;
        await this.#check(first, count, missing.length === 0 ? undefined : fetched);
        return fetched;
      } catch (error) {
        const isWrong = error instanceof DiskError && error.code === "damaged";
        if (!isWrong || this.#isDamaged || this.#closed) throw error;
      }
    }
  }

  async #keepFetched(firstBlock: number, bytes: Buffer): Promise<void> {
    this.#sweep?.steer(firstBlock + Math.ceil(bytes.length / BLOCK_BYTES));
    try {
      await this.#keep(firstBlock, bytes);
    } catch (error) {
      if (!isNoRoom(error)) throw error;
      if (this.#state.phase === "filling") this.#state = { phase: "full" };
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

  /** Writes what is not here. Two that bring the same bring the same bytes. */
  async #keep(firstBlock: number, bytes: Buffer): Promise<void> {
    this.#requireUndamaged();
    const count = Math.ceil(bytes.length / BLOCK_BYTES);
    for (let index = 0; index < count; index += 1) {
      if (this.#here.has(firstBlock + index)) continue;
      const block = bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
      if (!isZero(block)) {
        this.#checks.write(firstBlock + index);
        await writeWhole(this.#file, block, (firstBlock + index) * BLOCK_BYTES);
      } else await this.#clear(firstBlock + index, 1);
      if (!this.#here.set(firstBlock + index)) continue;
      this.#fetchedBytes += block.length;
      this.#unnoted.push(firstBlock + index);
    }
    await this.#kept(firstBlock, count);
  }

  /** Zeros stay holes, but where something else was written before. */
  async #clear(firstBlock: number, count: number): Promise<void> {
    const at = { file: this.#file, findData: this.#findData, sizeBytes: this.sizeBytes };
    await clearStale(at, { firstBlock, count, here: this.#here, checks: this.#checks });
  }

  async #keepHole(firstBlock: number, count: number): Promise<void> {
    await this.#clear(firstBlock, count);
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
    await this.#check(firstBlock, count);
  }

  /** @param unkept blocks of the chunk that are not all in the file. */
  async #check(firstBlock: number, count: number, unkept?: readonly Fetched[]): Promise<void> {
    try {
      if (unkept !== undefined) await this.#checks.checkWith(firstBlock, unkept);
      else await this.#checks.check(firstBlock, count);
    } catch (error) {
      this.#onDamage(error, firstBlock, count);
      throw error;
    }
  }

  /** Notes what has come and was not found wrong; one after the other. Never rejects: what is not noted comes again. */
  #note(): Promise<void> {
    this.#noting = this.#noting.then(async () => {
      if (this.#isDamaged) return;
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

  /** What comes late from a source that was left, perhaps because it is wrong, is not taken. */
  async #takeFrom(sweep: FillingSweep, keep: () => Promise<void>): Promise<void> {
    if (this.#sweep !== sweep) return;
    const keeping = keep();
    this.#keeping.add(keeping);
    await keeping.finally(() => this.#keeping.delete(keeping));
  }

  /** Resolves when nothing that has come is on its way into the file. */
  async #settled(): Promise<void> {
    await Promise.allSettled([this.#fetches.settled(), ...this.#keeping]);
  }

  /** A sweep has nothing to bring any more. What others are bringing may have yet to be found right. */
  async #onSwept(sweep: FillingSweep): Promise<void> {
    await this.#settled();
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

  #onDamage(error: unknown, firstBlock: number, count: number): void {
    if (this.#isDamaged) return;
    if (error instanceof DiskError && error.code === "damaged" && this.#goesOnAfter(error)) {
      this.#throwAway(firstBlock, count);
      return;
    }
    this.#state = { phase: "damaged", message: messageOf(error) };
    this.#whole.reject(error as Error);
    void this.#sweep?.stop();
  }

  /** Chunks with these blocks that are whole and were not found right come again, wherever they came from. */
  #throwAway(firstBlock: number, count: number): void {
    for (let block = firstBlock; block < firstBlock + count;) {
      const chunk = this.#checks.unsettled(block);
      block = chunk === undefined ? block + 1 : chunk.first + chunk.count;
      if (chunk === undefined || !this.#checks.isOpen(chunk.first)) continue;
      this.#here.clearRun(chunk.first, chunk.count);
      this.#checks.forget(chunk.first);
      this.#unnoted = this.#unnoted.filter((each) => each < chunk.first || each >= chunk.first + chunk.count);
      // Should that fail, it is found wrong again by whoever takes it up.
      this.#noting = this.#noting.then(() => this.#notes.forget(chunk)).catch(() => {});
    }
  }

  get #isDamaged(): boolean {
    return this.#state.phase === "damaged";
  }

  #requireUndamaged(): void {
    if (this.#state.phase === "damaged") throw new DiskError("damaged", this.#state.message);
  }
}
