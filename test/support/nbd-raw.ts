import { connect, type Socket } from "node:net";
import { once } from "node:events";

/** A client that says exactly what a test wants, right or wrong. */
export class RawNbd {
  readonly socket: Socket;
  #held: Buffer = Buffer.alloc(0);
  #wake: () => void = () => {};
  /** Whether the server has ended the connection. */
  ended = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (bytes: Buffer) => {
      this.#held = Buffer.concat([this.#held, bytes]);
      this.#wake();
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      this.ended = true;
      this.#wake();
    });
  }

  static async connect(path: string): Promise<RawNbd> {
    const socket = connect({ path });
    const client = new RawNbd(socket);
    await once(socket, "connect");
    return client;
  }

  /** The next bytes of the server; fewer when it ends the connection before. */
  async take(lengthBytes: number): Promise<Buffer> {
    while (this.#held.length < lengthBytes && !this.ended) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const bytes = this.#held.subarray(0, lengthBytes);
    this.#held = this.#held.subarray(lengthBytes);
    return bytes;
  }

  /** Waits for the server to end the connection, and gives what it said before. */
  async takeAll(): Promise<Buffer> {
    return this.take(Number.MAX_SAFE_INTEGER);
  }

  send(bytes: Buffer): void {
    this.socket.write(bytes);
  }

  close(): void {
    this.socket.destroy();
  }
}

/** A client's flags: fixed new style, no zeroes. */
export function clientFlags(flags = 3): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(flags);
  return bytes;
}

export function clientOption(option: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(16);
  head.write("IHAVEOPT", "latin1");
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
}

/** The data of INFO and GO: a name and what is to be told of it. */
export function goData(name: string, infos: readonly number[] = []): Buffer {
  const count = Buffer.alloc(2 + infos.length * 2);
  count.writeUInt16BE(infos.length);
  for (const [index, info] of infos.entries()) count.writeUInt16BE(info, 2 + index * 2);
  return Buffer.concat([counted(name), count]);
}

/** The data of SET_META_CONTEXT and LIST_META_CONTEXT. */
export function contextData(name: string, queries: readonly string[]): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(queries.length);
  return Buffer.concat([counted(name), count, ...queries.map(counted)]);
}

export function clientRequest(fields: {
  type: number;
  offset: number;
  lengthBytes: number;
  flags?: number;
  cookie?: string;
}): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32BE(0x25609513);
  bytes.writeUInt16BE(fields.flags ?? 0, 4);
  bytes.writeUInt16BE(fields.type, 6);
  bytes.write(fields.cookie ?? "cookie 1", 8, "latin1");
  bytes.writeBigUInt64BE(BigInt(fields.offset), 16);
  bytes.writeUInt32BE(fields.lengthBytes, 24);
  return bytes;
}

function counted(text: string): Buffer {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}
