import { assert } from "../base/index.js";
import { COMMAND, OPTION_MAGIC, REQUEST_MAGIC } from "./nbd-protocol.js";

/** Most bytes of an option's data: the longest name the protocol knows is 4096 bytes, and a list of queries goes with it. */
export const MAX_OPTION_BYTES = 8192;

/** Most bytes a write may bring that is refused; they are thrown away as they come. */
export const MAX_WRITE_BYTES = 32 * 1024 * 1024;

const FLAGS_BYTES = 4;
const OPTION_HEAD_BYTES = 16;
const REQUEST_BYTES = 28;

assert(REQUEST_BYTES <= MAX_OPTION_BYTES, "what waits for its rest has room");

/** One command of a client. */
export interface NbdRequest {
  flags: number;
  type: number;
  /** The client's own mark, which its answer carries. */
  cookie: Buffer;
  /** As near as a number comes to what was sent; a disk's own offsets are exact. */
  offset: number;
  lengthBytes: number;
}

/** What is told of a client's bytes, in their order. */
export interface NbdReceiverHandlers {
  onFlags(flags: number): void;
  /** Says whether requests follow, or another option. */
  onOption(option: number, data: Buffer): "option" | "request";
  onRequest(request: NbdRequest): void;
}

/** Where the next byte belongs, and of what is left how much. */
type State =
  | { at: "flags" }
  | { at: "option-head" }
  | { at: "option-data"; option: number; lengthBytes: number }
  | { at: "request" }
  | { at: "refused-data"; request: NbdRequest; leftBytes: number }
  | { at: "broken" };

/** Reads what an NBD client sends, strictly, from pieces of any size. It never holds more than one option. */
export class NbdReceiver {
  readonly #handlers: NbdReceiverHandlers;
  #state: State = { at: "flags" };
  readonly #held = Buffer.alloc(MAX_OPTION_BYTES);
  #heldBytes = 0;

  constructor(handlers: NbdReceiverHandlers) {
    this.#handlers = handlers;
  }

  /**
   * Takes the next bytes. A handler may call `stop`.
   * @returns why the client is to be left, when it does not keep to the protocol.
   */
  push(bytes: Buffer): string | undefined {
    let rest = bytes;
    for (;;) {
      const state = this.#state;
      if (state.at === "broken") return undefined;
      if (state.at === "refused-data") {
        const skipped = Math.min(state.leftBytes, rest.length);
        rest = rest.subarray(skipped);
        state.leftBytes -= skipped;
        if (state.leftBytes > 0) return undefined;
        this.#state = { at: "request" };
        this.#handlers.onRequest(state.request);
        continue;
      }
      const neededBytes = needed(state);
      const lacking = neededBytes - this.#heldBytes;
      if (rest.length < lacking) {
        this.#hold(rest);
        return undefined;
      }
      const piece =
        this.#heldBytes === 0 ? rest.subarray(0, neededBytes) : this.#hold(rest.subarray(0, lacking));
      this.#heldBytes = 0;
      rest = rest.subarray(lacking);
      const problem = this.#take(state, piece);
      if (problem === undefined) continue;
      this.stop();
      return problem;
    }
  }

  /** Whatever comes from here on is not looked at. */
  stop(): void {
    this.#state = { at: "broken" };
    this.#heldBytes = 0;
  }

  /** Keeps what waits for its rest, in room that is used again. @returns all that is kept. */
  #hold(bytes: Buffer): Buffer {
    bytes.copy(this.#held, this.#heldBytes);
    this.#heldBytes += bytes.length;
    return this.#held.subarray(0, this.#heldBytes);
  }

  #take(state: Exclude<State, { at: "refused-data" | "broken" }>, bytes: Buffer): string | undefined {
    switch (state.at) {
      case "flags":
        this.#become({ at: "option-head" });
        this.#handlers.onFlags(bytes.readUInt32BE(0));
        return undefined;
      case "option-head":
        return this.#onOptionHead(bytes);
      case "option-data": {
        // Before the handler, so that one that stops this is not overruled.
        this.#become({ at: "option-head" });
        const next = this.#handlers.onOption(state.option, Buffer.from(bytes));
        if (next === "request") this.#become({ at: "request" });
        return undefined;
      }
      case "request":
        return this.#onRequest(bytes);
    }
  }

  #onOptionHead(bytes: Buffer): string | undefined {
    if (!bytes.subarray(0, 8).equals(OPTION_MAGIC)) return "an option does not begin with its mark";
    const option = bytes.readUInt32BE(8);
    const lengthBytes = bytes.readUInt32BE(12);
    if (lengthBytes > MAX_OPTION_BYTES)
      return `option ${option} has ${lengthBytes} bytes, ${MAX_OPTION_BYTES} are allowed`;
    this.#become({ at: "option-data", option, lengthBytes });
    return undefined;
  }

  #onRequest(bytes: Buffer): string | undefined {
    if (bytes.readUInt32BE(0) !== REQUEST_MAGIC) return "a request does not begin with its mark";
    const request: NbdRequest = {
      flags: bytes.readUInt16BE(4),
      type: bytes.readUInt16BE(6),
      cookie: Buffer.from(bytes.subarray(8, 16)),
      offset: Number(bytes.readBigUInt64BE(16)),
      lengthBytes: bytes.readUInt32BE(24),
    };
    if (request.type !== COMMAND.write) {
      this.#handlers.onRequest(request);
      return undefined;
    }
    if (request.lengthBytes > MAX_WRITE_BYTES)
      return `a write brings ${request.lengthBytes} bytes, ${MAX_WRITE_BYTES} are looked past`;
    this.#become({ at: "refused-data", request, leftBytes: request.lengthBytes });
    return undefined;
  }

  #become(state: State): void {
    if (this.#state.at !== "broken") this.#state = state;
  }
}

function needed(state: Exclude<State, { at: "refused-data" | "broken" }>): number {
  switch (state.at) {
    case "flags":
      return FLAGS_BYTES;
    case "option-head":
      return OPTION_HEAD_BYTES;
    case "option-data":
      return state.lengthBytes;
    case "request":
      return REQUEST_BYTES;
  }
}
