import type {
  ChildNotes,
  CopyFile,
  FillableMemory,
  FrameLane,
  TrackedMemory,
  WritableMemory,
} from "../../../src/transfer/index.js";
import type { Life } from "./host.js";
import type { SimulatedMemory } from "./memory.js";

/** A parent's memory in the hands of one agent's life. */
export function trackedBy(life: Life, memory: SimulatedMemory): TrackedMemory {
  life.onDeath(() => memory.abandon());
  return {
    pageCount: memory.pageCount,
    track: (onWriteFaults) => void (life.acts() && memory.track(onWriteFaults)),
    protectedPages: () => memory.protectedPages(),
    protect: (range) => void (life.acts() && memory.protect(range)),
    protectAside: async (range) => void (life.acts() && (await memory.protectAside(range))),
    unprotect: (range) => void (life.acts() && memory.unprotect(range)),
    read: (range, into) => memory.read(range, into),
    nextData: (page) => memory.nextData(page),
    release: () => void (life.acts() && memory.release()),
  };
}

/** A child's memory in the hands of one agent's life. */
export function filledBy(life: Life, memory: SimulatedMemory): FillableMemory {
  life.onDeath(() => memory.abandon());
  return {
    pageCount: memory.pageCount,
    fill: (onMissingFaults) => void (life.acts() && memory.fill(onMissingFaults)),
    installed: () => memory.installed(),
    install: (firstPage, bytes) => void (life.acts() && memory.install(firstPage, bytes)),
    installZero: (range) => void (life.acts() && memory.installZero(range)),
    wake: (range) => void (life.acts() && memory.wake(range)),
    release: () => void (life.acts() && memory.release()),
  };
}

/** A child's memory that is being filled, in the hands of another thread of the agent. */
export function joinedBy(life: Life, memory: SimulatedMemory): FillableMemory {
  return {
    ...filledBy(life, memory),
    fill: (onMissingFaults) => void (life.acts() && memory.join(onMissingFaults)),
  };
}

/** The memory of a child that does not run yet, in the hands of one agent's life. */
export function writtenBy(life: Life, memory: SimulatedMemory): WritableMemory {
  return {
    pageCount: memory.pageCount,
    write: (firstPage, bytes) => void (life.acts() && memory.write(firstPage, bytes)),
    discard: (range) => void (life.acts() && memory.discard(range)),
  };
}

/** Copies, which outlive the agent that takes them. */
export function copiesOf(life: Life, copies: CopyFile): CopyFile {
  return {
    write: (page, bytes) => !life.acts() || copies.write(page, bytes),
    read: (page, into) => void (life.alive && copies.read(page, into)),
    drop: (range) => void (life.acts() && copies.drop(range)),
    pages: () => copies.pages(),
  };
}

/** Notes, which outlive the agent that takes them. */
export function notesOf(life: Life, notes: ChildNotes): ChildNotes {
  return {
    noteZero: (ranges) => void (life.acts() && notes.noteZero(ranges)),
    zeros: () => notes.zeros(),
    noteDigests: (firstPage, digests) => void (life.acts() && notes.noteDigests(firstPage, digests)),
    digests: () => notes.digests(),
  };
}

/** One end of a lane, which ends with the life that holds it: `lost` says how. */
export function laneOf(life: Life, lane: FrameLane, lost: () => void): FrameLane {
  life.onDeath(lost);
  return {
    get queuedBytes() {
      return lane.queuedBytes;
    },
    send: (frame, onTaken) => void (life.acts() && lane.send(frame, onTaken)),
    attach: (handlers) =>
      lane.attach({
        onFrame: (frame) => void (life.alive && handlers.onFrame(frame)),
        onEnd: (end) => void (life.alive && handlers.onEnd(end)),
      }),
    close: (end) => void (life.acts() && lane.close(end)),
  };
}
