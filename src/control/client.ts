import { DeadlineError, MAX_CONTROL_BYTES, withDeadline, type Clock, type Log } from "../base/index.js";
import { z } from "zod";
import type { ChannelEnd, MessageChannel } from "./channel.js";
import { decodeMessage, encodeMessage } from "./codec.js";
import { describeIssues } from "./describe.js";
import { ControlError, RemoteError } from "./errors.js";
import { MAX_CLIENT_PENDING, MAX_REPLY_VALUES } from "./limits.js";
import { METHODS, type MethodName, type ParamsInput, type Result } from "./methods.js";
import { errorView, u32 } from "./schema/common.js";
import { EVENTS, type AnyEvent, type EventName } from "./schema/events.js";

interface Pending {
  method: MethodName;
  resolve(result: unknown): void;
  reject(error: Error): void;
}

const reply = z.union([
  z.object({ id: u32, result: z.record(z.string(), z.unknown()) }),
  z.object({ id: u32, error: errorView }),
]);

/** The calling side of a control connection. It owns the channel: closing it closes that. */
export class RpcClient {
  readonly #channel: MessageChannel;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #pending = new Map<number, Pending>();
  readonly #eventHandlers = new Set<(event: AnyEvent) => void>();
  readonly #endHandlers = new Set<(end: ChannelEnd) => void>();
  #lastId = 0;
  #end: ChannelEnd | undefined;

  constructor(channel: MessageChannel, options: { clock: Clock; log: Log }) {
    this.#channel = channel;
    this.#clock = options.clock;
    this.#log = options.log;
    channel.attach({
      onFrame: (bytes) => this.#onFrame(bytes),
      onEnd: (end) => this.#finish(end),
    });
  }

  /** Why the connection is over; undefined while it is not. */
  get end(): ChannelEnd | undefined {
    return this.#end;
  }

  /**
   * Calls a method and waits for its result. Nothing is repeated: after `closed` or a DeadlineError, what became of the
   * call is not known.
   * @throws RemoteError with the other side's code, ControlError `closed`, `busy`, `too-large` or `bad-answer`, DeadlineError.
   */
  async call<Name extends MethodName>(
    method: Name,
    params: ParamsInput<Name>,
    options: { deadlineMs: number },
  ): Promise<Result<Name>> {
    if (this.#end) throw closedError(this.#end);
    if (this.#pending.size >= MAX_CLIENT_PENDING) {
      throw new ControlError("busy", `${MAX_CLIENT_PENDING} requests of this connection are unanswered`);
    }
    const id = this.#nextId();
    const bytes = encodeMessage({ id, method, params });
    const answer = new Promise<unknown>((resolve, reject) =>
      this.#pending.set(id, { method, resolve, reject }),
    );
    try {
      this.#channel.send(bytes);
      return (await withDeadline(
        this.#clock,
        options.deadlineMs,
        `the answer to ${method}`,
        answer,
      )) as Result<Name>;
    } catch (error) {
      if (error instanceof DeadlineError) this.#log.warn({ method, id }, "a call was given up");
      throw error;
    } finally {
      this.#pending.delete(id);
    }
  }

  /** Gives every event to `handler`, from now on. Returns what ends that. */
  onEvent(handler: (event: AnyEvent) => void): () => void {
    this.#eventHandlers.add(handler);
    return () => this.#eventHandlers.delete(handler);
  }

  /** Calls `handler` once when the other side or the network ends the connection; at once when that has happened. */
  onEnd(handler: (end: ChannelEnd) => void): void {
    if (this.#end) handler(this.#end);
    else this.#endHandlers.add(handler);
  }

  /** Ends the connection; unanswered calls fail with `closed`. May be called twice. */
  close(): void {
    if (this.#end) return;
    this.#endHandlers.clear();
    const end = { code: "closed", message: "the client closed it", fatal: true };
    this.#channel.close(end);
    this.#finish(end);
  }

  #nextId(): number {
    do this.#lastId = this.#lastId === 0xffffffff ? 1 : this.#lastId + 1;
    while (this.#pending.has(this.#lastId));
    return this.#lastId;
  }

  #onFrame(bytes: Uint8Array): void {
    if (this.#end) return;
    let message: Record<string, unknown>;
    try {
      message = decodeMessage(bytes, { maxBytes: MAX_CONTROL_BYTES, maxValues: MAX_REPLY_VALUES });
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      const end = { code: error.code, message: error.message, fatal: true };
      this.#channel.close(end);
      this.#finish(end);
      return;
    }
    if ("event" in message) this.#onEventMessage(message);
    else this.#onReply(message);
  }

  #onEventMessage(message: Record<string, unknown>): void {
    const name = message.event;
    if (typeof name !== "string" || !Object.hasOwn(EVENTS, name)) return;
    const data = EVENTS[name as EventName].safeParse(message.data);
    if (!data.success) {
      this.#log.warn(
        { event: name, problem: describeIssues(data.error.issues, message.data) },
        "a bad event",
      );
      return;
    }
    const event = { event: name, data: data.data } as AnyEvent;
    for (const handler of [...this.#eventHandlers]) handler(event);
  }

  #onReply(message: Record<string, unknown>): void {
    const parsed = reply.safeParse(message);
    if (!parsed.success) {
      this.#log.warn("a message that is neither reply nor event");
      return;
    }
    const pending = this.#pending.get(parsed.data.id);
    if (!pending) return;
    if ("error" in parsed.data) {
      pending.reject(new RemoteError(parsed.data.error.code, parsed.data.error.message));
      return;
    }
    const result = METHODS[pending.method].result.safeParse(parsed.data.result);
    if (result.success) pending.resolve(result.data);
    else {
      const problem = describeIssues(result.error.issues, parsed.data.result);
      pending.reject(
        new ControlError("bad-answer", `the answer to ${pending.method} is not valid: ${problem}`),
      );
    }
  }

  #finish(end: ChannelEnd): void {
    if (this.#end) return;
    this.#end = end;
    for (const pending of this.#pending.values()) pending.reject(closedError(end));
    this.#eventHandlers.clear();
    for (const handler of [...this.#endHandlers]) handler(end);
    this.#endHandlers.clear();
  }
}

function closedError(end: ChannelEnd): ControlError {
  return new ControlError("closed", `the connection to the agent ended: ${end.message}`);
}
