import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { deferred, realClock, silentLog, sleep, withDeadline, type Clock } from "../../src/base/index.js";
import {
  dial,
  Listener,
  type Connection,
  type ConnectionEnd,
  type ListenerOptions,
} from "../../src/lane/index.js";

/** Long enough for a machine under load; never waited for when all is well. */
export const PATIENCE_MS = 20_000;

export const KEY = Buffer.from("a key for tests, not for use");

/** Waits for a condition that input and timers bring about. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const deadlineUs = realClock.nowUs() + PATIENCE_MS * 1000;
  while (!condition()) {
    if (realClock.nowUs() > deadlineUs) throw new Error(`${what} did not happen`);
    await sleep(realClock, 1);
  }
}

/** Waits until what is under way has had its turn, several times over. For showing that nothing (more) happens. */
export async function settle(): Promise<void> {
  await sleep(realClock, 20);
}

/** What a test that failed has left open; otherwise its file would never end. */
const leftovers: (() => Promise<void>)[] = [];
after(async () => {
  for (const close of leftovers) await close();
});

/** What an owner has been told. */
export class Recorder {
  readonly frames: Buffer[] = [];
  readonly ends: ConnectionEnd[] = [];

  readonly handlers = {
    onFrame: (frame: Uint8Array): void => {
      this.frames.push(Buffer.from(frame));
    },
    onEnd: (end: ConnectionEnd): void => {
      this.ends.push(end);
    },
  };
}

export interface TestListener {
  listener: Listener;
  url: string;
  /** Connections accepted so far. */
  accepted: Connection[];
}

/** A listener on a free port of loopback, with the tests' key, that keeps what it accepts. */
export async function openListener(options: Partial<ListenerOptions> = {}): Promise<TestListener> {
  const accepted: Connection[] = [];
  const listener = await Listener.open({
    address: { host: "127.0.0.1", port: 0 },
    ...(options.credentials === undefined ? { key: KEY } : {}),
    clock: realClock,
    log: silentLog,
    onConnection: (connection) => accepted.push(connection),
    ...options,
  });
  leftovers.push(() => listener.close());
  const address = options.address;
  const url =
    address !== undefined && "path" in address
      ? `unix:${address.path}`
      : `${options.credentials === undefined ? "ws" : "wss"}://127.0.0.1:${listener.port}`;
  return { listener, url, accepted };
}

/** Runs `body` with a directory of its own. */
export async function withDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "ramet-lane-"));
  try {
    await body(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** A wire that can be cut: a TCP proxy that resets both sides. */
export class Cable {
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((near) => {
    const far = connect({ host: "127.0.0.1", port: this.#farPort, noDelay: true });
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  readonly #farPort: number;

  private constructor(farPort: number) {
    this.#farPort = farPort;
  }

  static async open(farPort: number): Promise<Cable> {
    const cable = new Cable(farPort);
    leftovers.push(() => cable.close());
    cable.#server.listen(0, "127.0.0.1");
    await once(cable.#server, "listening");
    return cable;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async close(): Promise<void> {
    const closed = deferred<void>();
    this.#server.close(() => closed.resolve());
    for (const socket of this.#sockets) socket.destroy();
    await closed.promise;
  }
}

/** A connection with both its ends, over a cable. */
export async function openPair(clock: Clock = realClock) {
  const { listener, accepted } = await openListener({ clock });
  const cable = await Cable.open(listener.port);
  const hello = { purpose: "bulk", role: "peer", transfer: 1, epoch: 1 } as const;
  const child = await dial({ url: cable.url, hello, key: KEY, clock, deadlineMs: PATIENCE_MS });
  await until("the listener's end", () => accepted.length === 1);
  return {
    child,
    parent: accepted[0] as Connection,
    break: () => cable.cut(),
    close: async () => {
      await withDeadline(realClock, PATIENCE_MS, "the listener's end", listener.close());
      await cable.close();
    },
  };
}
