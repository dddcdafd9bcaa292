import type { Clock, Timer } from "../../../src/base/index.js";
import { LOCAL_IDENTITY, silentLog } from "../../../src/base/index.js";
import {
  RpcClient,
  RpcServerSession,
  type ChannelEnd,
  type GuestView,
  type Handlers,
  type MessageChannel,
  type TransferView,
} from "../../../src/control/index.js";

/** One end of a pair of channels in memory. Delivery is synchronous unless the receiver is stalled. */
export class MemoryChannel implements MessageChannel {
  other: MemoryChannel | undefined;
  /** What the other end would not yet take. */
  readonly queue: Uint8Array[] = [];
  stalled = false;
  ended: ChannelEnd | undefined;
  #handlers: { onFrame(message: Uint8Array): void; onEnd(end: ChannelEnd): void } | undefined;

  get queuedBytes(): number {
    return this.queue.reduce((sum, message) => sum + message.length, 0);
  }

  send(message: Uint8Array): void {
    if (this.ended) return;
    this.queue.push(Uint8Array.from(message));
    this.flush();
  }

  /** Delivers what is queued, unless stalled. */
  flush(): void {
    const other = this.other;
    while (!this.stalled && other && other.#handlers && this.queue.length > 0) {
      other.#handlers.onFrame(this.queue.shift() as Uint8Array);
    }
  }

  attach(handlers: { onFrame(message: Uint8Array): void; onEnd(end: ChannelEnd): void }): void {
    this.#handlers = handlers;
    this.other?.flush();
  }

  close(end: ChannelEnd): void {
    if (this.ended) return;
    this.ended = end;
    const other = this.other;
    if (!other || other.ended) return;
    other.ended = end;
    if (other.#handlers) other.#handlers.onEnd(end);
  }
}

export function channelPair(): { near: MemoryChannel; far: MemoryChannel } {
  const near = new MemoryChannel();
  const far = new MemoryChannel();
  near.other = far;
  far.other = near;
  return { near, far };
}

/** Time that moves only when told to. */
export class ManualClock implements Clock {
  #nowMs = 0;
  #timers: { atMs: number; run: () => void }[] = [];

  nowUs(): number {
    return this.#nowMs * 1000;
  }

  wallMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, run: () => void): Timer {
    const timer = { atMs: this.#nowMs + delayMs, run };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  soon(run: () => void): Timer {
    return this.after(0, run);
  }

  get timers(): number {
    return this.#timers.length;
  }

  advance(byMs: number): void {
    this.#nowMs += byMs;
    const due = this.#timers.filter((timer) => timer.atMs <= this.#nowMs);
    this.#timers = this.#timers.filter((timer) => timer.atMs > this.#nowMs);
    for (const timer of due) timer.run();
  }
}

export const GUEST: GuestView = {
  id: "00000000-0000-4000-8000-000000000001",
  name: "web",
  state: "running",
  architecture: "x86_64",
  machine: "pc-q35-7.2",
  memoryBytes: 256 * 1024 * 1024,
  cpus: 1,
  kernel: "/boot/vmlinuz",
  append: "console=ttyS0",
  network: { mode: "none" },
  transfers: [],
  createdAtMs: 1_700_000_000_000,
};

export const TRANSFER: TransferView = {
  id: 7,
  kind: "fork",
  role: "parent",
  guest: "web",
  peerGuest: "web-1",
  host: "ws://127.0.0.1:7001",
  phase: "paging",
  pages: { total: 65536, received: 16384, fault: 100, push: 50, sweep: 6234, zero: 10000, duplicates: 3 },
  bytes: { control: 40_000, urgent: 500_000, bulk: 12_000_000 },
  pauseUs: 1234,
  pauseParts: { stopUs: 200, saveUs: 900, resumeUs: 134 },
  firstInstructionUs: 9876,
  startedAtMs: 1_700_000_000_000,
  elapsedMs: 1500,
};

const refuse = (): Promise<never> => Promise.reject(new Error("not expected"));

/** Handlers that all fail but for those given. */
export function clientHandlers(some: Partial<Handlers<"client">>): Handlers<"client"> {
  return {
    "agent.info": refuse,
    "agent.audit": refuse,
    "disk.list": refuse,
    "disk.chain": refuse,
    "disk.loans": refuse,
    "disk.release": refuse,
    "disk.flatten": refuse,
    "disk.commit": refuse,
    "disk.adopt": refuse,
    "agent.reload": refuse,
    "agent.offer": refuse,
    "agent.leave": refuse,
    "guest.run": refuse,
    "guest.list": refuse,
    "guest.show": refuse,
    "guest.stop": refuse,
    "guest.kill": refuse,
    "guest.freeze": refuse,
    "guest.thaw": refuse,
    "guest.exchange": refuse,
    "guest.suspend": refuse,
    "guest.resume": refuse,
    "guest.swap": refuse,
    "guest.remove": refuse,
    "guest.logs": refuse,
    "guest.console.open": refuse,
    "guest.console.input": refuse,
    "guest.console.close": refuse,
    "guest.warm": refuse,
    "guest.fork": refuse,
    "guest.migrate": refuse,
    "guest.rollback": refuse,
    "emulator.list": refuse,
    "exchange.start": refuse,
    "exchange.show": refuse,
    "exchange.stop": refuse,
    "image.import": refuse,
    "image.list": refuse,
    "image.show": refuse,
    "image.verify": refuse,
    "image.remove": refuse,
    "image.stored": refuse,
    "image.prune": refuse,
    "image.pull": refuse,
    "transfer.list": refuse,
    "transfer.show": refuse,
    "transfer.cancel": refuse,
    "transfer.sweep": refuse,
    "transfer.steer": refuse,
    "transfer.run": refuse,
    "peer.list": refuse,
    "peer.ping": refuse,
    ...some,
  };
}

/** A client and a session for it, joined in memory. */
export function rpcPair(some: Partial<Handlers<"client">>) {
  const { near, far } = channelPair();
  const clock = new ManualClock();
  const session = new RpcServerSession(far, {
    identity: LOCAL_IDENTITY,
    role: "client",
    handlers: clientHandlers(some),
    clock,
    log: silentLog,
  });
  const client = new RpcClient(near, { clock, log: silentLog });
  return { near, far, clock, session, client };
}
