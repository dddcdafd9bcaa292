import { closeSync } from "node:fs";
import { Worker } from "node:worker_threads";
import {
  assert,
  deferred,
  withDeadline,
  type Clock,
  type Deferred,
  type Identity,
} from "../../base/index.js";
import { LaneError, laneErrorCode, type Handed, type Hello } from "../../lane/index.js";
import type { SharedFaults } from "../../memory/index.js";
import {
  Gate,
  pagesOf,
  TransferError,
  type ChildShare,
  type FaultThread,
  type LaneEnd,
  type ThreadLane,
} from "../../transfer/index.js";
import type { LaneAddress } from "../transfers/dial-lane.js";
import type { FaultThreadSettings, Order, Socketed, Telling } from "./messages.js";
import { ThreadChannel } from "./thread-channel.js";

/** How long the thread may take to let go of a child's memory: as long as a page takes to be installed on a host that is short of memory. */
const STOP_DEADLINE_MS = 30_000;
/** How long it may take to end its lanes, for which it has a tenth of a second. */
const END_DEADLINE_MS = 1000;

/** An urgent lane, which may wait for somebody to take it up. */
export interface UrgentLane extends ThreadLane {
  /** Keeps it alive until it is taken up; calls `onEnd` once when it ends before that. */
  park(onEnd: () => void): void;
}

/** An urgent lane that was dialled for a child that is not there yet. */
export interface LaneAhead extends Pick<UrgentLane, "park" | "close"> {
  readonly lane: number;
}

/** An urgent lane that has come to this agent. */
export interface ArrivedLane {
  hello: Hello;
  identity: Identity;
  /** Address of the other side, for messages. */
  remote: string;
  /** Takes it over. @param shareFile gives a descriptor of the memory file that requests may be answered from. */
  over(shareFile: () => number | undefined): UrgentLane;
  close(end: LaneEnd): void;
}

type FaultHandlers = Parameters<FaultThread["fill"]>[1] & { host: string; gate: Gate };
type TakeUp = Parameters<ThreadLane["takeUp"]>[0];

/**
 * The thread that serves faults, as the agent's own thread sees it: what waits for a page waits for nothing else this agent does. It has the urgent lanes and
 * reports the faults of children; all decisions but the quick ones are taken here.
 */
export class FaultThreadHandle {
  readonly #worker: Worker;
  readonly #clock: Clock;
  readonly #channels = new Map<number, ThreadChannel>();
  readonly #dialled = new Map<number, Deferred<void>>();
  /** What is called when a lane ends that nobody has taken up. */
  readonly #parked = new Map<number, () => void>();
  readonly #children = new Map<number, FaultHandlers>();
  readonly #onArrived: (lane: ArrivedLane) => void;
  readonly #onThread: (thread: number) => void;
  readonly #ended = deferred<void>();
  #lanes = 0;
  #lastChild = 0;
  #ending = false;

  /**
   * @param options.onArrived called with each urgent lane that comes to this agent; a coded error thrown there ends it.
   * @param options.onThread called once, with the thread's number on this host (gettid(2)).
   */
  constructor(options: {
    settings: FaultThreadSettings;
    clock: Clock;
    onArrived: (lane: ArrivedLane) => void;
    onThread: (thread: number) => void;
  }) {
    this.#clock = options.clock;
    this.#onArrived = options.onArrived;
    this.#onThread = options.onThread;
    // What scripts/build makes of this file and of that lies side by side.
    const url = new URL("./worker.js", import.meta.url);
    // It is given descriptors that it has not opened, and closes them.
    const descriptors = { trackUnmanagedFds: false };
    this.#worker = new Worker(url, { workerData: options.settings, name: "faults", ...descriptors });
    this.#worker.on("message", (telling: Telling) => this.#onTold(telling));
    this.#worker.on("error", (error) => this.#onBroken(error));
    this.#worker.on("exit", () => this.#onExit());
  }

  /** Gives it a connection that came to one of the agent's sockets. */
  take(at: Socketed, handed: Handed): void {
    this.#order({ do: "take", at, handed });
  }

  /** What serves the faults of one child, and dials its urgent lane. */
  child(options: {
    transfer: number;
    /** Starts filling, and gives what the thread needs of the userfaultfd. */
    share: () => SharedFaults;
    /** The file digests are noted in; undefined for a child that compares nothing. */
    digests: string | undefined;
    /** This host, for messages. */
    host: string;
  }): {
    faults: FaultThread;
    dial(address: LaneAddress): Promise<ThreadLane>;
    /** Takes a lane that was dialled before. */
    use(ahead: LaneAhead): ThreadLane;
  } {
    const { transfer, digests, host } = options;
    const child = (this.#lastChild += 1);
    let filling: ChildShare | undefined;
    /** Lanes that are there before the child's memory is, which a pre-copy still writes. */
    const asking: number[] = [];
    const ask = (lane: number): void => {
      if (filling === undefined) asking.push(lane);
      else this.#order({ do: "ask", lane, child });
    };
    return {
      faults: {
        fill: (share, handlers) => {
          const faults = options.share();
          filling = share;
          this.#children.set(child, { ...handlers, host, gate: new Gate(share.gate) });
          this.#order({ do: "fill", child, transfer, faults, share, digests });
          for (const lane of asking.splice(0)) ask(lane);
        },
        settled: (pages) => this.#order({ do: "settle", child, pages }),
        stop: () => {
          if (filling !== undefined && this.#children.delete(child)) this.#stop(child, filling.gate);
        },
      },
      dial: async (address) => {
        const lane = await this.#dial(address);
        return this.#laneOf(lane, () => ask(lane));
      },
      use: ({ lane }) => this.#laneOf(lane, () => ask(lane)),
    };
  }

  /** Dials an urgent lane for a child that is not there yet. @throws LaneError. */
  async dialAhead(address: LaneAddress): Promise<LaneAhead> {
    const lane = await this.#dial(address);
    return {
      lane,
      park: (onEnd) => this.#park(lane, onEnd),
      close: (end) => this.#closeLane(lane, end),
    };
  }

  /** Has it read the certificates again now. */
  reload(): void {
    this.#order({ do: "reload" });
  }

  /** Ends all its lanes and then the thread. */
  async close(): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    this.#worker.postMessage({ do: "end" } satisfies Order);
    try {
      await withDeadline(this.#clock, END_DEADLINE_MS, "the fault thread's end", this.#ended.promise);
    } catch {
      await this.#worker.terminate();
    }
  }

  #order(order: Order): void {
    if (!this.#ending) return this.#worker.postMessage(order);
    for (const descriptor of descriptorsOf(order)) closeSync(descriptor);
  }

  #stop(child: number, gate: SharedArrayBuffer): void {
    this.#order({ do: "stop", child, gate });
    assert(
      this.#ending || new Gate(gate).awaitStopped(STOP_DEADLINE_MS),
      `the fault thread did not let go of a child's memory for ${STOP_DEADLINE_MS} ms`,
    );
  }

  async #dial(address: LaneAddress): Promise<number> {
    const lane = (this.#lanes += 1);
    const dialled = deferred<void>();
    this.#dialled.set(lane, dialled);
    this.#order({ do: "dial", lane, address });
    await dialled.promise;
    return lane;
  }

  #park(lane: number, onEnd: () => void): void {
    this.#parked.set(lane, onEnd);
    this.#order({ do: "park", lane });
  }

  #laneOf(lane: number, takeUp: (options: TakeUp) => void): UrgentLane {
    return {
      park: (onEnd) => this.#park(lane, onEnd),
      takeUp: (options) => {
        this.#parked.delete(lane);
        const channel = new ThreadChannel({
          handlers: options.handlers,
          gate: options.share && new Gate(options.share.gate),
          attach: () => takeUp(options),
          send: (frame) => this.#order({ do: "send", lane, frame }),
          close: (end) => this.#closeLane(lane, end),
        });
        this.#channels.set(lane, channel);
        return channel;
      },
      close: (end) => this.#closeLane(lane, end),
    };
  }

  #closeLane(lane: number, end: LaneEnd): void {
    this.#channels.delete(lane);
    this.#parked.delete(lane);
    this.#order({ do: "close", lane, end });
  }

  #onTold(telling: Telling): void {
    switch (telling.is) {
      case "thread":
        return this.#onThread(telling.thread);
      case "arrived":
        return this.#onLane(telling);
      case "dialled":
      case "undialled":
        return this.#onDialled(telling);
      case "taken":
        return this.#onTaken(telling);
      case "failed":
        return this.#onFailed(telling);
      case "ended":
        this.#parked.get(telling.lane)?.();
        this.#parked.delete(telling.lane);
        this.#channels.get(telling.lane)?.told(telling);
        return void this.#channels.delete(telling.lane);
      default:
        return this.#channels.get(telling.lane)?.told(telling);
    }
  }

  #onTaken({ child, taken }: Extract<Telling, { is: "taken" }>): void {
    const handlers = this.#children.get(child);
    handlers?.gate.addUnseen(-pagesOf(taken));
    handlers?.onTaken(taken);
  }

  #onLane({ lane, hello, identity, remote }: Extract<Telling, { is: "arrived" }>): void {
    this.#onArrived({
      hello,
      identity,
      remote,
      over: (shareFile) =>
        this.#laneOf(lane, ({ transfer, pageCount, share }) => {
          assert(share !== undefined, "an urgent lane that arrives is a parent's");
          this.#order({ do: "answer", lane, transfer, pageCount, share, file: shareFile() });
        }),
      close: (end) => this.#closeLane(lane, end),
    });
  }

  #onDialled(telling: Extract<Telling, { is: "dialled" | "undialled" }>): void {
    const dialled = this.#dialled.get(telling.lane);
    this.#dialled.delete(telling.lane);
    if (telling.is === "undialled") {
      const { code, message, fatal } = telling.error;
      return dialled?.reject(new LaneError(laneErrorCode(code, "refused"), message, { fatal }));
    }
    dialled?.resolve();
  }

  #onFailed({ child, code, message }: Extract<Telling, { is: "failed" }>): void {
    const handlers = this.#children.get(child);
    if (handlers === undefined) return;
    const why = code === "gone" ? `the child's emulator on ${handlers.host} has ended` : message;
    handlers.onFailed(new TransferError("child-failed", why));
  }

  /** Children's faults and parents' answers are with it, so the agent goes with it: another one takes over. */
  #onBroken(error: unknown): void {
    throw error;
  }

  #onExit(): void {
    assert(this.#ending, "the fault thread ends with the agent");
    this.#ended.resolve();
  }
}

/** The descriptors that go with an order. */
function descriptorsOf(order: Order): number[] {
  if (order.do === "take") return [order.handed.descriptor];
  if (order.do === "fill") return [order.faults.descriptor];
  return order.do === "answer" && order.file !== undefined ? [order.file] : [];
}
