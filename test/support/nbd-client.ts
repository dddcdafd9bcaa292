/** Reads and writes a disk that an emulator gives over NBD, as its guest would: what is acknowledged is known, and what is flushed is safe. */
import { connect, type Socket } from "node:net";

const OPTION_MAGIC = Buffer.from("IHAVEOPT");
const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;
const FIXED_NO_ZEROES = 3;
const EXPORT_NAME = 1;
const GREETING_BYTES = 18;
const EXPORT_BYTES = 10;
const REPLY_BYTES = 16;

export const NBD = { read: 0, write: 1, flush: 3, trim: 4, zeroes: 6 } as const;

interface Waiting {
  readBytes: number;
  resolve(data: Buffer): void;
  reject(error: Error): void;
}

export class NbdClient {
  readonly #socket: Socket;
  readonly #waiting = new Map<bigint, Waiting>();
  #held = Buffer.alloc(0);
  #next = 1n;
  #ready: (() => void) | undefined;
  #phase: "greeting" | "export" | "replies" = "greeting";
  #error: Error | undefined;
  readonly #name: string;

  private constructor(path: string, name: string) {
    this.#name = name;
    this.#socket = connect(path);
    this.#socket.on("data", (data) => this.#receive(data));
    this.#socket.on("error", (error) => this.#end(error));
    this.#socket.on("close", () => this.#end(new Error("the emulator has gone")));
  }

  static async connect(path: string, name: string): Promise<NbdClient> {
    const client = new NbdClient(path, name);
    await new Promise<void>((resolve, reject) => {
      client.#ready = resolve;
      client.#socket.once("close", () => reject(new Error("the export was refused")));
    });
    return client;
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#request(NBD.read, offset, length);
  }

  async write(offset: number, data: Buffer): Promise<void> {
    await this.#request(NBD.write, offset, data.length, data);
  }

  async flush(): Promise<void> {
    await this.#request(NBD.flush, 0, 0);
  }

  async trim(offset: number, length: number): Promise<void> {
    await this.#request(NBD.trim, offset, length);
  }

  async zeroes(offset: number, length: number): Promise<void> {
    await this.#request(NBD.zeroes, offset, length);
  }

  close(): void {
    this.#socket.destroy();
  }

  #request(type: number, offset: number, length: number, data?: Buffer): Promise<Buffer> {
    if (this.#error !== undefined) return Promise.reject(this.#error);
    const handle = this.#next++;
    const header = Buffer.alloc(28);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(type, 6);
    header.writeBigUInt64BE(handle, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(length, 24);
    return new Promise((resolve, reject) => {
      this.#waiting.set(handle, { readBytes: type === NBD.read ? length : 0, resolve, reject });
      this.#socket.write(data === undefined ? header : Buffer.concat([header, data]));
    });
  }

  #receive(data: Buffer): void {
    this.#held = Buffer.concat([this.#held, data]);
    while (this.#step());
  }

  #step(): boolean {
    if (this.#phase === "greeting") return this.#take(GREETING_BYTES, () => this.#greet());
    if (this.#phase === "export") return this.#take(EXPORT_BYTES, () => this.#begin());
    if (this.#held.length < REPLY_BYTES) return false;
    if (this.#held.readUInt32BE(0) !== REPLY_MAGIC) throw new Error("not a reply");
    const error = this.#held.readUInt32BE(4);
    const handle = this.#held.readBigUInt64BE(8);
    const waiting = this.#waiting.get(handle);
    if (waiting === undefined) throw new Error("a reply to nothing");
    const readBytes = error === 0 ? waiting.readBytes : 0;
    return this.#take(REPLY_BYTES + readBytes, (taken) => {
      this.#waiting.delete(handle);
      if (error === 0) waiting.resolve(taken.subarray(REPLY_BYTES));
      else waiting.reject(new Error(`NBD error ${error}`));
    });
  }

  #take(bytes: number, use: (taken: Buffer) => void): boolean {
    if (this.#held.length < bytes) return false;
    const taken = this.#held.subarray(0, bytes);
    this.#held = this.#held.subarray(bytes);
    use(taken);
    return true;
  }

  #greet(): void {
    this.#phase = "export";
    const head = Buffer.alloc(12);
    head.writeUInt32BE(FIXED_NO_ZEROES, 0);
    OPTION_MAGIC.copy(head, 4);
    const option = Buffer.alloc(8);
    option.writeUInt32BE(EXPORT_NAME, 0);
    option.writeUInt32BE(this.#name.length, 4);
    this.#socket.write(Buffer.concat([head, option, Buffer.from(this.#name)]));
  }

  #begin(): void {
    this.#phase = "replies";
    this.#ready?.();
  }

  #end(error: Error): void {
    this.#error ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#error);
    this.#waiting.clear();
  }
}
