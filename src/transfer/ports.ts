/**
 * What the parent and child machines need from the world. The agent plugs in userfaultfd, QEMU and WebSocket; the simulation
 * plugs in arrays, a seeded scheduler and lanes that break. Nothing in this room sees the real thing.
 */

import type { Bitmap } from "../base/index.js";
import type { Frame } from "../wire/index.js";

/** A run of pages: the index of the first (in units of 4 KiB from the start of guest memory) and how many. */
export interface PageRange {
  first: number;
  count: number;
}

/** A parent's memory: it can be read, and writes to it can be held up page by page. All calls but one are synchronous. */
export interface TrackedMemory {
  readonly pageCount: number;
  /** Starts tracking: nothing is protected yet. `onWriteFaults` is given pages whose writers wait for `unprotect`. */
  track(onWriteFaults: (pages: readonly number[]) => void): void;
  /** The pages that are held up, by this agent or by one that has ended. */
  protectedPages(): Bitmap;
  /** Holds up every later write to these pages. */
  protect(range: PageRange): void;
  /**
   * As `protect`, of large ranges, while the caller goes on: pages are held up one after the other until it resolves. A page that is let go of meanwhile may be
   * held up again. It ends early, and resolves, when nobody tracks the memory any more.
   */
  protectAside(range: PageRange): Promise<void>;
  /** Lets writes to these pages through again and wakes whoever waits. */
  unprotect(range: PageRange): void;
  /** Copies pages into `into` (range.count × 4096 bytes). Reading a hole gives zeros and allocates nothing. */
  read(range: PageRange, into: Uint8Array): void;
  /** The first range of pages at or after `page` that is not a hole; undefined when only holes follow. */
  nextData(page: number): PageRange | undefined;
  /** Ends tracking: unprotects and unregisters everything and wakes every waiter. May be called twice. */
  release(): void;
}

/** A child's memory as a private mapping of its parent's: it sees its parent's pages until it has some of its own. */
export interface PrivateMapping {
  /**
   * Gives the child pages of its own, with what it sees there now, where it has none; what it has written stays. Synchronous: when it returns true, what the parent
   * writes to these pages does not reach the child, nor does it when the child has ended. False when the host has no memory for it.
   */
  separate(range: PageRange): boolean;
}

/** A child's memory, filled from outside while the child runs on it. All calls are synchronous. */
export interface FillableMemory {
  readonly pageCount: number;
  /** Starts filling: from here on a touch of a page that was never installed waits, and is reported. */
  fill(onMissingFaults: (pages: readonly number[]) => void): void;
  /** The pages that exist, ascending, by whatever agent they were installed. */
  installed(): Iterable<PageRange>;
  /**
   * Installs consecutive pages from `bytes` (whole pages) and wakes whoever waits for them. Each page must be missing.
   * @throws MemoryError `no-memory` when the host cannot hold the page, `gone` when the emulator's process has ended.
   */
  install(firstPage: number, bytes: Uint8Array): void;
  /** Installs zero pages and wakes whoever waits for them. Errors as `install`. */
  installZero(range: PageRange): void;
  /** Wakes whoever waits for pages that are already there. */
  wake(range: PageRange): void;
  /** Ends filling: a page never installed reads as zeros from now on. May be called twice. */
  release(): void;
}

/** A child's memory before the child runs: nothing waits for it, and pages are replaced at will. All calls are synchronous. */
export interface WritableMemory {
  readonly pageCount: number;
  /** Writes consecutive whole pages. @throws MemoryError `no-memory` when the host cannot hold them. */
  write(firstPage: number, bytes: Uint8Array): void;
  /** Makes pages missing again. */
  discard(range: PageRange): void;
}

/** Temporary copies of a parent's pages, outside of its memory, where an agent's end does not lose them. All calls are synchronous. */
export interface CopyFile {
  /** Keeps a page (4096 bytes). False when the host has no room for it; nothing is kept then. */
  write(page: number, bytes: Uint8Array): boolean;
  /** Copies a kept page to the start of `into`. */
  read(page: number, into: Uint8Array): void;
  /** Forgets pages and gives their room back; nothing to do for pages that are not kept. */
  drop(range: PageRange): void;
  /** The pages that are kept, ascending. */
  pages(): Iterable<PageRange>;
}

/**
 * What a child's agent knows besides the child's memory, where a new agent finds it. All calls are synchronous, and what was noted is there for a new agent
 * as soon as they return.
 */
export interface ChildNotes {
  /** Notes pages that are known to be zero and may stay holes. */
  noteZero(ranges: readonly PageRange[]): void;
  /** Everything noted as zero. */
  zeros(): Iterable<PageRange>;
  /** Notes the digests (16 bytes a page) of consecutive pages that are about to be installed; only for a child that compares. */
  noteDigests(firstPage: number, digests: Uint8Array): void;
  /** The digests of all pages, as noted; those of other pages are anything. */
  digests(): Uint8Array;
}

/** Why a lane ended. `fatal` means that dialling again cannot help: the other side has ended the transfer. */
export interface LaneEnd {
  code: string;
  message: string;
  fatal: boolean;
}

/** One ordered, reliable stream of frames to the other side of a transfer. */
export interface FrameLane {
  /**
   * Hands over one encoded frame, whose bytes must stay as they are.
   * @param onTaken called once when they need not any more, perhaps before this returns; never when the lane ends before.
   */
  send(frame: Uint8Array, onTaken?: () => void): void;
  /** Bytes handed over that the machine's network stack has not yet taken. */
  readonly queuedBytes: number;
  /**
   * Must be called once, directly after the lane is obtained; frames that arrived before are delivered then, in order. A frame's bytes are valid until
   * `onFrame` returns: whoever keeps them copies them.
   */
  attach(handlers: { onFrame(frame: Uint8Array): void; onEnd(end: LaneEnd): void }): void;
  /** Ends the lane; `onEnd` is not called for it. May be called twice. `fatal` tells the other side not to dial again. */
  close(end: LaneEnd): void;
}

/** Frames over one lane, numbered and checked. */
export interface Channel {
  /** Takes the lane up, once, when its owner is ready: what arrived before, and even the end, is told before this returns or soon after. */
  attach(): void;
  /** Sends a frame and returns its size in bytes, 0 where it is not known or nothing is sent because the lane has ended. */
  send(frame: Frame): number;
  /** Ends the lane; `onEnd` is not called for it. May be called twice. */
  close(end: LaneEnd): void;
  readonly queuedBytes: number;
  /** Bytes of whole frames, both directions. */
  readonly bytes: number;
}

/** What a channel tells its owner. `onEnd` comes at most once, and never after `close`. */
/** What another thread has answered requests with. */
export interface Answers {
  pages: readonly number[];
  /** How many of them are zero. */
  zeros: number;
  /** What lies around them and was sent as well. */
  around: readonly PageRange[];
  /** Bytes of the frames of that. */
  aroundBytes: number;
}

export interface ChannelHandlers {
  onFrame(frame: Frame, frameBytes: number): void;
  onEnd(end: LaneEnd): void;
  /** Only of a lane that another thread serves. */
  onAnswered?(answers: Answers): void;
}

/** What the thread that answers requests sees of a parent's session. */
export interface SessionShare {
  /** A `Gate`: open while requests may be answered, and how much of what lies around them may be sent as well. */
  gate: SharedArrayBuffer;
  /** The pages the child is owed, as `SharedBits`. */
  owed: SharedArrayBuffer;
  /** The pages sent so far, as `SharedBits`: they are sent again only to whoever asks. */
  sent: SharedArrayBuffer;
  /** The pages that are in guest memory as they were at the instant, as `SharedBits`; undefined when all are. */
  held: SharedArrayBuffer | undefined;
}

/** An urgent lane that another thread has: it serves it by itself as far as it can, and the channel is for the rest. */
export interface ThreadLane {
  /** @param options.share of a parent's session; a child's is known to the thread from `FaultThread.fill`. */
  takeUp(options: {
    transfer: number;
    pageCount: number;
    handlers: ChannelHandlers;
    share?: SessionShare;
  }): Channel;
  /** Ends a lane that is not taken up. */
  close(end: LaneEnd): void;
}

/** What the thread that serves touches sees of a child's pages, all as `SharedBits` but the gate. */
export interface ChildShare {
  /** A `Gate`: how many wait, and whether content is wanted. */
  gate: SharedArrayBuffer;
  /** Pages whose content is known here, zero pages included. */
  received: SharedArrayBuffer;
  /** Pages that are in memory. */
  installed: SharedArrayBuffer;
  /** Pages the thread has asked for; it changes them. */
  requested: SharedArrayBuffer;
}

/** Consecutive pages the thread has installed. */
export interface TakenPages {
  firstPage: number;
  pageCount: number;
  /** `answer`: it came on the urgent lane, one page; `around`: they came there with such an answer; `known`: it was here, or known to be zero, before. */
  by: "answer" | "around" | "known";
  zero: boolean;
  /** How long somebody has waited for the page; undefined when nobody has, and for several pages. */
  latencyUs: number | undefined;
  /** Their content, where that is wanted and they are not zero. */
  bytes?: Uint8Array;
  /** Their digests one after the other, where those are wanted. */
  digests?: Uint8Array;
}

/** Another thread, which serves the touches of a child's missing pages and has its urgent lane. */
export interface FaultThread {
  /** Starts filling, as `FillableMemory.fill` does. Errors as that. */
  fill(
    share: ChildShare,
    handlers: { onTaken(taken: readonly TakenPages[]): void; onFailed(error: Error): void },
  ): void;
  /** Pages it has asked for have come another way. */
  settled(pages: readonly number[]): void;
  /** When this returns, it neither reads faults nor installs pages any more. May be called twice, and before `fill`. */
  stop(): void;
}

/** The lanes of a transfer that carry pages. The third, `control`, is the connection commands travel on. */
export type PageLane = "urgent" | "bulk";

/** Dials the parent. Rejects when that fails; a rejection with a `fatal: true` property ends the transfer. */
export type DialLane = (lane: PageLane, epoch: number) => Promise<FrameLane | ThreadLane>;

/** What is to be done while a parent stands still. */
export interface InPause {
  /** It has just stopped; the emulator saves meanwhile. */
  onStopped(): void;
  /** All is saved; it runs on as soon as this is done. */
  atInstant(): Promise<void> | void;
}

/** The parent's emulator as a fork or migration sees it. Every call has a deadline of its own and rejects when it passes. */
export interface ParentEmulator {
  /** Does what saving the device state can do while the guest still runs. Returns what the composed state will begin with. */
  prepareDeviceState(options: { handOver: boolean }): Promise<Uint8Array>;
  /**
   * Stops a running guest, saves its device state and lets it run on. `compose`, which can wait until it does, makes of the state what another emulator loads;
   * the times are the emulator's own. When it rejects, also with what `work` throws, the guest may stand still.
   */
  snapshot(work: InPause): Promise<{ compose(): Uint8Array; stoppedAtUs: number; resumedAtUs: number }>;
  /** Stops the guest's processors and devices. `stoppedAtUs` is the emulator's own time of the event. */
  stop(): Promise<{ stoppedAtUs: number }>;
  /** Saves the device state of a stopped guest. `compose`, which can wait until it runs on, makes of it what another emulator loads. */
  saveDeviceState(options: { handOver: boolean }): Promise<{ compose(): Uint8Array }>;
  /** Lets a stopped guest run on. `resumedAtUs` is on the same scale as `stoppedAtUs`. */
  resume(): Promise<{ resumedAtUs: number }>;
}

/** One future child, on whatever host, as the parent's side commands it over the control lane. */
export interface ChildTarget {
  /** The transfer's number, unique for both agents; it stands in every frame. */
  readonly transfer: number;
  /** Host the child is to run on, for messages. */
  readonly host: string;
  /** Reserves memory, makes an emulator wait for device state, and dials the page lanes. */
  prepare(): Promise<void>;
  /** Sends the first part of the device state ahead, once `prepare` was called, and waits for that where it must. `start` is given all of it nevertheless, and sends what is left. */
  sendAhead(head: Uint8Array): Promise<void>;
  /**
   * Loads the device state; with `run`, the child executes its first instruction as soon as it is loaded. After a pre-copy, `lacking` are the pages that
   * the child lacks.
   */
  start(deviceState: Uint8Array, options: { run: boolean; lacking?: Bitmap }): Promise<ChildStarted>;
  /** Lets a child that was loaded without `run` execute its first instruction. */
  run(): Promise<ChildStarted>;
  /** Ends the child, whatever its state. Resolves when it is gone or was never there. */
  cancel(reason: string): Promise<void>;
}

/** What the child's host says of the start, in durations of its own clock. */
export interface ChildStarted {
  /** Microseconds from the arrival of the command to the device state loaded. */
  loadUs: number;
  /** Microseconds from the arrival of the command to the first instruction; 0 while the child is held. */
  runUs: number;
}
