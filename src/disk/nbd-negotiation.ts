import {
  ALLOCATION_CONTEXT,
  ALLOCATION_ID,
  blockSizeInfo,
  exportInfo,
  exportNameReply,
  FIXED_NEWSTYLE,
  metaContext,
  NO_ZEROES,
  OPTION,
  optionReply,
  REPLY,
} from "./nbd-protocol.js";
import { MAX_OPTIONS, MAX_READ_BYTES, PREFERRED_READ_BYTES } from "./nbd-limits.js";

/** What a client and this side have agreed on. */
export interface NbdAgreement {
  structured: boolean;
  /** Whether the client may ask where the disk has content. */
  allocation: boolean;
}

/** What follows from an option: what is sent, and whether requests follow or the client is left, for a reason unless it wished so. */
export interface NegotiationStep {
  reply?: Buffer;
  next: "option" | "request" | "end";
  problem?: string;
}

/** Agrees with a client on how it reads one export. No sockets and no time, only options and answers. */
export class NbdNegotiation {
  readonly #exportName: string;
  readonly #sizeBytes: number;
  readonly #agreed: NbdAgreement = { structured: false, allocation: false };
  #padded = true;
  #options = 0;

  constructor(options: { exportName: string; sizeBytes: number }) {
    this.#exportName = options.exportName;
    this.#sizeBytes = options.sizeBytes;
  }

  get agreed(): Readonly<NbdAgreement> {
    return this.#agreed;
  }

  /** The client's flags, its first bytes. @returns why it is left, if it is. */
  onFlags(flags: number): string | undefined {
    if ((flags & ~(FIXED_NEWSTYLE | NO_ZEROES)) !== 0) return `the client has set unknown flags ${flags}`;
    if ((flags & FIXED_NEWSTYLE) === 0) return "the client does not negotiate in the fixed new style";
    this.#padded = (flags & NO_ZEROES) === 0;
    return undefined;
  }

  onOption(option: number, data: Buffer): NegotiationStep {
    this.#options += 1;
    if (this.#options > MAX_OPTIONS) return { next: "end", problem: `more than ${MAX_OPTIONS} options` };
    switch (option) {
      case OPTION.exportName:
        return this.#onExportName(data);
      case OPTION.abort:
        return { reply: optionReply(option, REPLY.ack), next: "end" };
      case OPTION.list:
        return answer(option, data.length === 0 ? REPLY.policy : REPLY.invalid);
      case OPTION.info:
      case OPTION.go:
        return this.#onGo(option, data);
      case OPTION.structuredReply:
        if (data.length > 0) return answer(option, REPLY.invalid);
        this.#agreed.structured = true;
        return answer(option, REPLY.ack);
      case OPTION.listMetaContext:
      case OPTION.setMetaContext:
        return this.#onMetaContext(option, data);
      default:
        return answer(option, REPLY.unsupported);
    }
  }

  /** There is no answer to a name that is not known. */
  #onExportName(data: Buffer): NegotiationStep {
    if (!this.#isName(data)) return { next: "end", problem: "the client asks for another export" };
    return { reply: exportNameReply(this.#sizeBytes, { padded: this.#padded }), next: "request" };
  }

  #onGo(option: number, data: Buffer): NegotiationStep {
    const nameBytes = data.length >= 4 ? data.readUInt32BE(0) : 0;
    const at = 4 + nameBytes;
    if (data.length < at + 2 || data.length !== at + 2 + data.readUInt16BE(at) * 2)
      return answer(option, REPLY.invalid);
    if (!this.#isName(data.subarray(4, at))) return answer(option, REPLY.unknown);
    const sizes = { least: 1, preferred: PREFERRED_READ_BYTES, most: MAX_READ_BYTES };
    const reply = Buffer.concat([
      optionReply(option, REPLY.info, exportInfo(this.#sizeBytes)),
      optionReply(option, REPLY.info, blockSizeInfo(sizes)),
      optionReply(option, REPLY.ack),
    ]);
    return { reply, next: option === OPTION.go ? "request" : "option" };
  }

  #onMetaContext(option: number, data: Buffer): NegotiationStep {
    const asked = this.#agreed.structured ? queriesOf(data) : undefined;
    if (asked === undefined) return answer(option, REPLY.invalid);
    if (!this.#isName(asked.name)) return answer(option, REPLY.unknown);
    const lists = option === OPTION.listMetaContext;
    const found = asked.queries.some(
      (query) =>
        query === ALLOCATION_CONTEXT || (lists && query === ALLOCATION_CONTEXT.replace(/[^:]*$/, "")),
    );
    const allocation = found || (lists && asked.queries.length === 0);
    // What is set replaces what was set before.
    if (!lists) this.#agreed.allocation = allocation;
    const context = metaContext(ALLOCATION_ID, ALLOCATION_CONTEXT);
    const told = allocation ? optionReply(option, REPLY.metaContext, context) : Buffer.alloc(0);
    return { reply: Buffer.concat([told, optionReply(option, REPLY.ack)]), next: "option" };
  }

  #isName(name: Buffer): boolean {
    return name.toString("utf8") === this.#exportName;
  }
}

function answer(option: number, reply: number): NegotiationStep {
  return { reply: optionReply(option, reply), next: "option" };
}

/** A name and queries, each behind its length; undefined when they do not fill the option exactly. */
function queriesOf(data: Buffer): { name: Buffer; queries: string[] } | undefined {
  let at = 0;
  const number = (): number => {
    const value = at + 4 <= data.length ? data.readUInt32BE(at) : Number.NaN;
    at += 4;
    return value;
  };
  const text = (): Buffer => {
    const lengthBytes = number();
    const bytes = data.subarray(at, at + lengthBytes);
    at += lengthBytes;
    return bytes;
  };
  const name = text();
  const count = number();
  const queries: string[] = [];
  while (queries.length < count && at <= data.length) queries.push(text().toString("utf8"));
  return at === data.length && queries.length === count ? { name, queries } : undefined;
}
