import { existsSync } from "node:fs";
import { codeOf, messageOf, sleep, type Clock, type Log } from "../../base/index.js";
import type { DiskView } from "../../control/index.js";
import {
  DiskError,
  emptyQcow2,
  FileSource,
  FillingDisk,
  FillingNotes,
  NbdServer,
  type BlockExtent,
  type BlockSource,
  type Disk,
  type DiskArrival,
  type DiskStore,
} from "../../disk/index.js";
import { findData } from "../../memory/index.js";
import type { FrameLane } from "../../transfer/index.js";
import type { BlockPurpose } from "../blocks/block-supply.js";
import { RemoteBlocks } from "../blocks/remote-blocks.js";

/** Pauses before a source that was lost is asked for another grant: they double. */
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

/** How often it is tried again to have emulators read what has arrived where it lies: they may not have been let run yet. */
const LOCALISE_RETRY_MS = 500;

/** What a qcow2 file may have besides its content: an emulator is told a size when it opens it, and the file grows until the instant. */
const SLACK_BYTES = 64 * 1024 * 1024;

/** What an agent does for a layer on its way. */
export interface LayerHost {
  /** Asks the source for a grant; the token shows that it was offered. Rejects with the source's code. */
  open(
    arrival: DiskArrival,
    asked: { disk: string; token: string | undefined },
  ): Promise<{ grant: number; token: string; sizeBytes: number }>;
  dial(
    arrival: DiskArrival,
    lane: { purpose: BlockPurpose; epoch: number; grant: number; token: string },
  ): Promise<FrameLane>;
  /** Tells the source that the disk is not needed any more, as soon as it can be reached; never rejects. */
  giveBack(arrival: DiskArrival, disk: string): Promise<void>;
  /** Has every guest read a layer where it lies. False when there is one that cannot yet. */
  localise(disk: string): Promise<boolean>;
}

type Arriving = Disk & { arriving: DiskArrival };

/** A disk of another host whose file is on its way. */
export function isArriving(disk: Disk): disk is Arriving {
  return disk.arriving !== undefined;
}

/**
 * What an emulator reads of a layer's file. It opens that before the instant, when it is written elsewhere: until then it is given an empty one. When the device state was loaded, QEMU
 * reads anew what a file says of itself, and nothing else of it was used by then.
 */
export class OpenedBefore implements BlockSource {
  readonly sizeBytes: number;
  readonly #empty: Buffer;
  /** The file, once it is one that does not change. */
  content: BlockSource | undefined;

  constructor(sizeBytes: number) {
    this.sizeBytes = 2 * sizeBytes + SLACK_BYTES;
    this.#empty = emptyQcow2(sizeBytes);
  }

  async read(offset: number, lengthBytes: number): Promise<Buffer> {
    const { content } = this;
    const endBytes = content?.sizeBytes ?? this.#empty.length;
    const insideBytes = Math.max(0, Math.min(lengthBytes, endBytes - offset));
    if (insideBytes === 0) return Buffer.alloc(lengthBytes);
    const bytes = await (content?.read(offset, insideBytes) ??
      this.#empty.subarray(offset, offset + insideBytes));
    return insideBytes === lengthBytes ? bytes : Buffer.concat([bytes], lengthBytes);
  }

  extents(_offset: number, lengthBytes: number): Promise<BlockExtent[]> {
    return Promise.resolve([{ lengthBytes, hole: false }]);
  }
}

/**
 * The file of a frozen disk on its way from another host, used meanwhile:
 *
 *     expected ──begin (after the instant)──▶ filling ──all here──▶ arrived ──read by nobody over NBD──▶ settled
 */
export class ArrivingLayer {
  readonly disk: Arriving;
  readonly #store: DiskStore;
  readonly #host: LayerHost;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #opened: OpenedBefore;
  #server: NbdServer | undefined;
  #filling: FillingDisk | undefined;
  #file: FileSource | undefined;
  #remote: RemoteBlocks | undefined;
  #token: string | undefined;
  #beginning: Promise<void> | undefined;
  #wireBytes = 0;
  #waiting: string | undefined;
  #closed = false;
  /** Resolves when it has settled or was closed. */
  over: Promise<void> = Promise.resolve();

  private constructor(
    disk: Arriving,
    options: { store: DiskStore; host: LayerHost; clock: Clock; log: Log; token: string | undefined },
  ) {
    this.disk = disk;
    this.#store = options.store;
    this.#host = options.host;
    this.#clock = options.clock;
    this.#token = options.token;
    this.#log = options.log.child({ disk: disk.id });
    this.#opened = new OpenedBefore(disk.sizeBytes);
  }

  /** Serves the layer from here on, with what an earlier agent has left of it. @throws DiskError `bad-socket`, `damaged`. */
  static async open(
    disk: Arriving,
    options: { store: DiskStore; host: LayerHost; clock: Clock; log: Log; token?: string },
  ): Promise<ArrivingLayer> {
    const { store, clock, log } = options;
    const layer = new ArrivingLayer(disk, { token: undefined, ...options });
    try {
      await layer.#takeUp();
      const path = store.socketOf(disk.id);
      layer.#server = await NbdServer.open({ path, source: layer.#opened, open: true, clock, log });
    } catch (error) {
      await layer.close();
      throw error;
    }
    return layer;
  }

  get progress(): NonNullable<DiskView["arriving"]> {
    const { state, progress, sizeBytes = 0 } = this.#filling ?? {};
    const message =
      this.#waiting ??
      this.#remote?.problem ??
      (state !== undefined && "message" in state ? state.message : undefined);
    const full = state?.phase === "full" ? "the file system is full" : message;
    return {
      host: this.disk.arriving.host,
      hereBytes: this.#file?.sizeBytes ?? progress?.hereBytes ?? 0,
      fileBytes: this.#file?.sizeBytes ?? sizeBytes,
      wireBytes: this.#wireBytes + (this.#remote?.receivedBytes ?? 0),
      ...(full === undefined ? {} : { message: full.slice(0, 500) }),
    };
  }

  /** After the instant: asks for the file, which is read from here on. Errors as those of `LayerHost.open`. May be called again. */
  begin(): Promise<void> {
    this.#beginning ??= this.#begin().catch((error: unknown) => {
      this.#beginning = undefined;
      throw error;
    });
    return this.#beginning;
  }

  /** Goes on after an agent's restart with what was begun. Never rejects. */
  goOn(): void {
    if (this.#file !== undefined) this.over = this.#localise();
    else if (this.#filling !== undefined && this.#beginning === undefined) {
      this.#beginning = Promise.resolve();
      this.over = this.#finish(this.#filling);
      void this.#seek("its agent was restarted", { atOnce: true });
    }
  }

  /** Stops serving and filling it; what has come stays. May be called twice. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#remote?.close();
    await this.#server?.close();
    await this.#filling?.close();
    await this.#file?.close();
    this.#file = undefined;
  }

  /** It is not needed any more, and was removed. */
  async drop(): Promise<void> {
    await this.close();
    void this.#host.giveBack(this.disk.arriving, this.disk.id);
  }

  async #takeUp(): Promise<void> {
    const { id } = this.disk;
    if (existsSync(this.#store.pathOf(id))) {
      this.#file = await FileSource.open(this.#store.pathOf(id), findData);
      this.#opened.content = this.#file;
      return;
    }
    const options = { clock: this.#clock, findData };
    this.#filling = await FillingDisk.open(this.#store.fillingOf(id), options);
    this.#opened.content = this.#filling;
  }

  async #begin(): Promise<void> {
    if (this.#filling !== undefined || this.#file !== undefined) return this.goOn();
    const { id, arriving } = this.disk;
    const granted = await this.#host.open(arriving, { disk: id, token: this.#token });
    if (granted.sizeBytes > this.#opened.sizeBytes)
      throw new DiskError(
        "bad-size",
        `the file of disk ${id} has ${granted.sizeBytes} bytes, which is too many`,
      );
    await FillingNotes.create(this.#store.fillingOf(id), { sizeBytes: granted.sizeBytes });
    const filling = await FillingDisk.open(this.#store.fillingOf(id), { clock: this.#clock, findData });
    if (filling === undefined) throw new Error("a disk that was just begun is there");
    this.#filling = filling;
    this.#opened.content = filling;
    this.#attach(filling, granted);
    this.over = this.#finish(filling);
  }

  #attach(filling: FillingDisk, granted: { grant: number; token: string; sizeBytes: number }): void {
    const { grant, token, sizeBytes } = granted;
    const { arriving } = this.disk;
    const dial = (purpose: BlockPurpose, epoch: number) =>
      this.#host.dial(arriving, { purpose, epoch, grant, token });
    const remote = new RemoteBlocks({ grant, sizes: [sizeBytes], dial, clock: this.#clock });
    this.#remote = remote;
    this.#waiting = undefined;
    filling.attach(remote.disk(0));
    remote.onOver((why) => {
      filling.detach();
      this.#wireBytes += remote.receivedBytes;
      this.#remote = undefined;
      void this.#seek(why.message, { atOnce: false });
    });
  }

  /** Asks for another grant until there is one: readers wait meanwhile, and are never failed. */
  async #seek(why: string, { atOnce }: { atOnce: boolean }): Promise<void> {
    const { id, arriving } = this.disk;
    this.#waiting = why;
    this.#log.info({ host: arriving.host, problem: why }, "the source of a disk is asked again");
    let pauseMs = atOnce ? 0 : FIRST_PAUSE_MS;
    for (;;) {
      await sleep(this.#clock, pauseMs);
      const filling = this.#filling;
      if (this.#closed || filling === undefined || this.#file !== undefined) return;
      try {
        const granted = await this.#host.open(arriving, { disk: id, token: this.#token });
        if (granted.sizeBytes !== filling.sizeBytes)
          throw new DiskError("damaged", `the file of disk ${id} is not what it was there`);
        return this.#attach(filling, granted);
      } catch (error) {
        this.#waiting = `${messageOf(error)} (${codeOf(error)})`;
      }
      pauseMs = Math.min(Math.max(FIRST_PAUSE_MS, 2 * pauseMs), LONGEST_PAUSE_MS);
    }
  }

  /** Never rejects. */
  async #finish(filling: FillingDisk): Promise<void> {
    try {
      await filling.whole;
      this.#wireBytes += this.#remote?.receivedBytes ?? 0;
      this.#remote?.close();
      this.#remote = undefined;
      const { id } = this.disk;
      await this.#store.arrived(id, FillingNotes.contentPath(this.#store.fillingOf(id)));
      this.#file = await FileSource.open(this.#store.pathOf(id), findData);
      await this.#localise();
    } catch (error) {
      if (!this.#closed) this.#log.error({ problem: messageOf(error) }, "a disk did not come");
    }
  }

  async #localise(): Promise<void> {
    const { id, arriving } = this.disk;
    while (!this.#closed && !(await this.#host.localise(id))) await sleep(this.#clock, LOCALISE_RETRY_MS);
    if (this.#closed) return;
    await this.#store.settle(id);
    const { fileBytes, wireBytes } = this.progress;
    this.#log.info({ host: arriving.host, fileBytes, wireBytes }, "all of a disk is here");
    await this.close();
    void this.#host.giveBack(arriving, id);
  }
}
