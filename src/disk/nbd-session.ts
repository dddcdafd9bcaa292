import type { Socket } from "node:net";
import { messageOf, type Clock, type Log, type Timer } from "../base/index.js";
import { cutExtents, type BlockSource } from "./block-source.js";
import {
  MAX_EXTENTS,
  MAX_READ_BYTES,
  MAX_REQUESTS,
  MAX_UNREAD_BYTES,
  NEGOTIATION_DEADLINE_MS,
} from "./nbd-limits.js";
import { NbdNegotiation } from "./nbd-negotiation.js";
import {
  blockStatusReply,
  COMMAND,
  COMMAND_FLAG,
  errorReply,
  GREETING,
  NBD_ERROR,
  readReply,
  type Answering,
} from "./nbd-protocol.js";
import { NbdReceiver, type NbdRequest } from "./nbd-receiver.js";
import { isZero } from "./content-digest.js";

export interface NbdSessionOptions {
  socket: Socket;
  source: BlockSource;
  exportName: string;
  clock: Clock;
  log: Log;
  onEnd(): void;
}

/** One client's connection, from its first byte to its last. Requests are answered as their content comes, in any order. */
export class NbdSession {
  readonly #options: NbdSessionOptions;
  readonly #negotiation: NbdNegotiation;
  readonly #receiver: NbdReceiver;
  #deadline: Timer | undefined;
  #underWay = 0;
  #phase: "negotiating" | "serving" | "ended" = "negotiating";
  /** The client goes when what it has asked for is answered. */
  #leaving = false;

  constructor(options: NbdSessionOptions) {
    this.#options = options;
    const { socket, source, exportName, clock } = options;
    this.#negotiation = new NbdNegotiation({ exportName, sizeBytes: source.sizeBytes });
    this.#receiver = new NbdReceiver({
      onFlags: (flags) => this.#leave(this.#negotiation.onFlags(flags)),
      onOption: (option, data) => this.#onOption(option, data),
      onRequest: (request) => this.#onRequest(request),
    });
    this.#deadline = clock.after(NEGOTIATION_DEADLINE_MS, () =>
      this.#leave(`it had not agreed on anything within ${NEGOTIATION_DEADLINE_MS} ms`),
    );
    socket.on("data", (bytes: Buffer) => this.#leave(this.#receiver.push(bytes)));
    socket.on("drain", () => this.#adjust());
    socket.on("error", () => {});
    socket.on("close", () => this.#onClose());
    socket.write(GREETING);
  }

  /** Ends the connection; what is under way is not answered. */
  end(): void {
    this.#options.socket.destroy();
  }

  #onOption(option: number, data: Buffer): "option" | "request" {
    const { reply, next, problem } = this.#negotiation.onOption(option, data);
    if (reply !== undefined) this.#options.socket.write(reply);
    if (problem !== undefined) this.#leave(problem);
    else if (next === "end") this.#finish();
    if (next !== "request") return "option";
    this.#deadline?.cancel();
    this.#phase = "serving";
    return "request";
  }

  #onRequest(request: NbdRequest): void {
    if (request.type === COMMAND.disconnect) return this.#finish();
    const { structured } = this.#negotiation.agreed;
    const to = { cookie: request.cookie, structured };
    const refused = this.#refusal(request);
    if (refused !== undefined) return this.#send(errorReply(to, refused.error, refused.why));
    this.#underWay += 1;
    this.#adjust();
    void this.#answer(request, to).then(() => {
      this.#underWay -= 1;
      if (this.#leaving) this.#finish();
      else this.#adjust();
    });
  }

  /** Never rejects: what the source cannot give is the client's answer. */
  async #answer(request: NbdRequest, to: Answering): Promise<void> {
    const { source, log } = this.#options;
    const { offset, lengthBytes, type } = request;
    try {
      if (type === COMMAND.blockStatus) {
        const most = (request.flags & COMMAND_FLAG.requireOne) === 0 ? MAX_EXTENTS : 1;
        const extents = cutExtents(await source.extents(offset, lengthBytes), lengthBytes, most);
        this.#send(blockStatusReply(to.cookie, extents));
        return;
      }
      const bytes = await source.read(offset, lengthBytes);
      const zero = to.structured && isZero(bytes);
      this.#send(readReply(to, { offset, lengthBytes, zero }), zero ? undefined : bytes);
    } catch (error) {
      log.warn(
        { offset, lengthBytes, problem: messageOf(error) },
        "a block could not be given to an emulator",
      );
      this.#send(errorReply(to, NBD_ERROR.io, messageOf(error)));
    }
  }

  #refusal({ type, flags, offset, lengthBytes }: NbdRequest): { error: number; why: string } | undefined {
    const { sizeBytes } = this.#options.source;
    const invalid = (why: string) => ({ error: NBD_ERROR.invalid, why });
    switch (type) {
      case COMMAND.write:
      case COMMAND.trim:
      case COMMAND.writeZeroes:
        return { error: NBD_ERROR.permission, why: "this export cannot be written" };
      case COMMAND.read:
        if ((flags & ~(COMMAND_FLAG.fua | COMMAND_FLAG.dontFragment)) !== 0) return invalid("unknown flags");
        if (lengthBytes > MAX_READ_BYTES) return invalid(`a read has at most ${MAX_READ_BYTES} bytes`);
        break;
      case COMMAND.blockStatus:
        if (!this.#negotiation.agreed.allocation) return invalid("no metadata context was agreed on");
        if ((flags & ~(COMMAND_FLAG.fua | COMMAND_FLAG.requireOne)) !== 0) return invalid("unknown flags");
        break;
      default:
        return invalid("unknown command");
    }
    if (lengthBytes === 0) return invalid("nothing was asked for");
    if (offset + lengthBytes > sizeBytes) return invalid(`the export ends at ${sizeBytes}`);
    return undefined;
  }

  #send(head: Buffer, content?: Buffer): void {
    const { socket } = this.#options;
    if (this.#phase !== "serving" || socket.destroyed) return;
    socket.cork();
    socket.write(head);
    if (content !== undefined) socket.write(content);
    socket.uncork();
    this.#adjust();
  }

  /** Reads on only while there is room for what that brings. */
  #adjust(): void {
    const { socket } = this.#options;
    const full = this.#underWay >= MAX_REQUESTS || socket.writableLength > MAX_UNREAD_BYTES;
    if (full && !socket.isPaused()) socket.pause();
    else if (!full && socket.isPaused()) socket.resume();
  }

  /** The client has said that it goes. */
  #finish(): void {
    this.#leaving = true;
    this.#receiver.stop();
    if (this.#underWay === 0) this.#options.socket.end();
  }

  #leave(problem: string | undefined): void {
    if (problem === undefined || this.#phase === "ended") return;
    this.#options.log.warn({ problem }, "an NBD client was left");
    this.#receiver.stop();
    this.#options.socket.destroy();
  }

  #onClose(): void {
    this.#phase = "ended";
    this.#deadline?.cancel();
    this.#receiver.stop();
    this.#options.onEnd();
  }
}
