import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { realClock, type Timer } from "../../src/base/index.js";

/** Bytes a pipe holds before its sender is told to wait. */
const MAX_HELD_BYTES = 1024 * 1024;
const SLICE_MS = 20;

/** What the network in front of one host is like at the moment. */
export interface Weather {
  /** New connections are refused. */
  refusing: boolean;
  /** Bytes are kept and delivered when it is over. */
  stalled: boolean;
  /** Bytes are swallowed; what is lost so is only found out by time, or when the connections are cut. */
  swallowing: boolean;
  delayMs: number;
  bytesPerSecond: number;
  /** The next piece of bytes is delivered in part, and then the connection is cut. */
  truncating: boolean;
}

export const FAIR: Readonly<Weather> = {
  refusing: false,
  stalled: false,
  swallowing: false,
  delayMs: 0,
  bytesPerSecond: Infinity,
  truncating: false,
};

/** One direction of one connection. */
class Pipe {
  /** Bytes delivered so far. */
  bytes = 0;
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #weather: Weather;
  readonly #cut: () => void;
  readonly #held: { chunk: Buffer; dueUs: number }[] = [];
  #heldBytes = 0;
  #freeAtUs = 0;
  #timer: Timer | undefined;
  #ended = false;

  constructor(options: { from: Socket; to: Socket; weather: Weather; cut: () => void }) {
    this.#from = options.from;
    this.#to = options.to;
    this.#weather = options.weather;
    this.#cut = options.cut;
    this.#from.on("data", (chunk: Buffer) => this.#take(chunk));
    this.#from.on("end", () => {
      this.#ended = true;
      this.drain();
    });
    this.#to.on("drain", () => this.drain());
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** Delivers what the weather lets through now. */
  drain(): void {
    this.stop();
    const weather = this.#weather;
    if (this.#to.destroyed) return;
    if (weather.swallowing) this.#forget();
    if (weather.stalled) return;
    const slice = Math.max(1, Math.floor((weather.bytesPerSecond * SLICE_MS) / 1000));
    for (let first = this.#held[0]; first !== undefined; first = this.#held[0]) {
      const nowUs = realClock.nowUs();
      const waitMs = (Math.max(first.dueUs, this.#freeAtUs) - nowUs) / 1000;
      if (waitMs > 0) return this.#later(waitMs);
      const chunk = first.chunk.subarray(0, slice);
      this.#freeAtUs = nowUs + (chunk.length / weather.bytesPerSecond) * 1e6;
      first.chunk = first.chunk.subarray(chunk.length);
      this.#heldBytes -= chunk.length;
      if (first.chunk.length === 0) this.#held.shift();
      if (weather.truncating && chunk.length > 1) return this.#truncate(chunk);
      this.bytes += chunk.length;
      if (!this.#to.write(chunk)) break;
    }
    if (this.#heldBytes < MAX_HELD_BYTES) this.#from.resume();
    if (this.#ended && this.#held.length === 0) this.#to.end();
  }

  #take(chunk: Buffer): void {
    this.#held.push({ chunk, dueUs: realClock.nowUs() + this.#weather.delayMs * 1000 });
    this.#heldBytes += chunk.length;
    if (this.#heldBytes >= MAX_HELD_BYTES) this.#from.pause();
    this.drain();
  }

  #forget(): void {
    this.#held.length = 0;
    this.#heldBytes = 0;
    this.#from.resume();
  }

  #truncate(chunk: Buffer): void {
    this.#weather.truncating = false;
    this.#to.write(chunk.subarray(0, chunk.length >> 1), () => this.#cut());
  }

  #later(delayMs: number): void {
    this.#timer = realClock.after(delayMs, () => this.drain());
  }
}

/** One connection through the proxy: the side that dialled and the host's. */
class Connection {
  readonly #sockets: [Socket, Socket];
  readonly #pipes: [Pipe, Pipe];

  constructor(options: { outside: Socket; inside: Socket; weather: Weather; onEnd: () => void }) {
    const { outside, inside, weather } = options;
    this.#sockets = [outside, inside];
    const cut = (): void => this.cut();
    this.#pipes = [
      new Pipe({ from: outside, to: inside, weather, cut }),
      new Pipe({ from: inside, to: outside, weather, cut }),
    ];
    for (const [index, socket] of this.#sockets.entries()) {
      // What went wrong does not matter: the other side is to see that it is over.
      socket.on("error", () => {});
      socket.on("close", (hadError) => {
        const other = this.#sockets[1 - index];
        if (hadError) other?.resetAndDestroy();
        else if (other?.destroyed === false) other.end();
        if (this.isOver) options.onEnd();
      });
    }
  }

  get isOver(): boolean {
    return this.#sockets.every((socket) => socket.destroyed);
  }

  /** Bytes delivered in both directions. */
  get bytes(): number {
    return this.#pipes[0].bytes + this.#pipes[1].bytes;
  }

  drain(): void {
    for (const pipe of this.#pipes) pipe.drain();
  }

  /** Both sides get a reset. */
  cut(): void {
    for (const pipe of this.#pipes) pipe.stop();
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }
}

/**
 * The network in front of one host: everyone else reaches it here. It knows nothing of what the bytes mean, and does to
 * them what networks do.
 */
export class Proxy {
  readonly #server: Server;
  readonly #connections = new Set<Connection>();
  readonly #weather: Weather = { ...FAIR };

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Listens at one address and leads to another. */
  static async open(options: {
    listen: { host: string; port: number };
    to: { host: string; port: number };
  }): Promise<Proxy> {
    const server = createServer({ allowHalfOpen: true });
    const proxy = new Proxy(server);
    server.on("connection", (outside) => proxy.#accept(outside, options.to));
    server.listen(options.listen.port, options.listen.host);
    await once(server, "listening");
    return proxy;
  }

  /** Connections that are open now, those that carried most bytes first. */
  get connections(): readonly { cut(): void; readonly bytes: number }[] {
    return [...this.#connections].toSorted((left, right) => right.bytes - left.bytes);
  }

  /** Changes the weather; what is not named stays as it is. */
  set(weather: Partial<Weather>): void {
    Object.assign(this.#weather, weather);
    for (const connection of this.#connections) connection.drain();
  }

  /** Fair weather again. Bytes that were swallowed do not come back, so the connections that lost some are cut. */
  clear(): void {
    const lost = this.#weather.swallowing;
    this.set(FAIR);
    if (lost) this.cut();
  }

  /** Cuts every connection. */
  cut(): void {
    for (const connection of [...this.#connections]) connection.cut();
  }

  async close(): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.cut();
    await closed;
  }

  #accept(outside: Socket, to: { host: string; port: number }): void {
    if (this.#weather.refusing) {
      outside.on("error", () => {});
      outside.resetAndDestroy();
      return;
    }
    outside.setNoDelay(true);
    const inside = connect({ ...to, allowHalfOpen: true, noDelay: true });
    const connection: Connection = new Connection({
      outside,
      inside,
      weather: this.#weather,
      onEnd: () => this.#connections.delete(connection),
    });
    this.#connections.add(connection);
  }
}
