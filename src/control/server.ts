import {
  CodedError,
  MAX_CONTROL_BYTES,
  messageOf,
  type Clock,
  type Identity,
  type Log,
  type Timer,
} from "../base/index.js";
import { z } from "zod";
import { requireAccess, requireTopic } from "./access.js";
import type { ChannelEnd, MessageChannel } from "./channel.js";
import { decodeMessage, encodeMessage, withoutUndefined } from "./codec.js";
import { describeIssues } from "./describe.js";
import { ControlError } from "./errors.js";
import {
  EVENT_BACKLOG_BYTES,
  LAGGED_RETRY_MS,
  MAX_CLIENT_PENDING,
  MAX_CLIENT_REQUEST_BYTES,
  MAX_MESSAGE_CHARACTERS,
  MAX_PEER_PENDING,
  MAX_REQUEST_VALUES,
  REPLY_BACKLOG_BYTES,
} from "./limits.js";
import {
  isMethod,
  METHODS,
  type MethodName,
  type MethodOf,
  type Params,
  type Result,
  type Role,
} from "./methods.js";
import { TOPICS, type Topic } from "./schema/agent.js";
import { u32 } from "./schema/common.js";
import { EVENTS, type EventData, type EventName } from "./schema/events.js";

/** What a handler knows besides its parameters: the connection it answers, for events and for cleaning up after it. */
export interface CallContext {
  readonly session: RpcServerSession;
}

type Handler<Name extends MethodName> = (params: Params<Name>, context: CallContext) => Promise<Result<Name>>;

/** What answers the methods of a role. `events.subscribe` is the session's own. */
export type Handlers<R extends Role> = { [Name in Exclude<MethodOf<R>, "events.subscribe">]: Handler<Name> };

type AnyHandlers = { [name: string]: (params: never, context: CallContext) => Promise<object> };

/** A request that was answered. */
export interface AnsweredCall {
  identity: Identity;
  role: Role;
  method: string;
  /** As they came, not checked yet. */
  params: Record<string, unknown>;
  /** Why it was refused or failed; undefined when it was carried out. */
  error: unknown;
  tookUs: number;
}

export type ServerSessionOptions = {
  identity: Identity;
  clock: Clock;
  log: Log;
  /** Told of every request once it is answered, those that were refused among them. Must not throw. */
  onAnswered?: (call: AnsweredCall) => void;
} & ({ role: "client"; handlers: Handlers<"client"> } | { role: "peer"; handlers: Handlers<"peer"> });

const request = z.strictObject({
  id: u32,
  method: z.string().max(64),
  params: z.record(z.string(), z.unknown()).default({}),
});

/** The answering side of one control connection. It owns the channel. */
export class RpcServerSession {
  readonly role: Role;
  /** Who is at the other end. */
  readonly identity: Identity;
  readonly #channel: MessageChannel;
  readonly #handlers: AnyHandlers;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #onAnswered: (call: AnsweredCall) => void;
  readonly #endHandlers = new Set<(end: ChannelEnd) => void>();
  readonly #topics = new Set<Topic>();
  #pending = 0;
  #dropped = 0;
  #laggedTimer: Timer | undefined;
  #end: ChannelEnd | undefined;

  constructor(channel: MessageChannel, options: ServerSessionOptions) {
    this.#channel = channel;
    this.role = options.role;
    this.identity = options.identity;
    this.#handlers = options.handlers;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#onAnswered = options.onAnswered ?? (() => {});
    channel.attach({
      onFrame: (bytes) => this.#onFrame(bytes),
      onEnd: (end) => this.#finish(end),
    });
  }

  /** Calls `handler` once when the connection is over, whoever ended it; at once when it is. Returns what takes that back. */
  onEnd(handler: (end: ChannelEnd) => void): () => void {
    if (this.#end) handler(this.#end);
    else this.#endHandlers.add(handler);
    return () => this.#endHandlers.delete(handler);
  }

  /** Whether the client asked for a topic. */
  subscribed(topic: Topic): boolean {
    return this.#topics.has(topic);
  }

  /**
   * Sends an event. Those of a topic go only to who subscribed to it. When the client reads too slowly the event is
   * dropped and counted, and a `lagged` event says so later. False when nothing was sent.
   */
  sendEvent<Name extends EventName>(event: Name, data: EventData<Name>): boolean {
    if (this.#end) return false;
    if (isTopic(event) && !this.#topics.has(event)) return false;
    if (this.#channel.queuedBytes > EVENT_BACKLOG_BYTES) {
      this.#dropped += 1;
      this.#watchLag();
      return false;
    }
    this.#sayLagged();
    this.#sendEvent(event, data);
    return true;
  }

  /** Ends the connection. May be called twice. */
  close(end: ChannelEnd): void {
    if (this.#end) return;
    this.#channel.close(end);
    this.#finish(end);
  }

  #sendEvent<Name extends EventName>(event: Name, data: EventData<Name>): void {
    const checked = EVENTS[event].safeParse(withoutUndefined(data));
    if (!checked.success) {
      // Ours, and worth a test that fails, but not worth the connection.
      this.#log.error(
        { event, problem: describeIssues(checked.error.issues, data) },
        "an event of our own is bad",
      );
      return;
    }
    this.#channel.send(encodeMessage({ event, data: checked.data }));
  }

  #sayLagged(): void {
    if (this.#dropped === 0) return;
    const dropped = this.#dropped;
    this.#dropped = 0;
    this.#laggedTimer?.cancel();
    this.#laggedTimer = undefined;
    this.#sendEvent("lagged", { dropped });
  }

  /** Without this a client that lost the last event of all would never hear of it. */
  #watchLag(): void {
    this.#laggedTimer ??= this.#clock.after(LAGGED_RETRY_MS, () => {
      this.#laggedTimer = undefined;
      if (this.#end || this.#dropped === 0) return;
      if (this.#channel.queuedBytes > EVENT_BACKLOG_BYTES) this.#watchLag();
      else this.#sayLagged();
    });
  }

  #onFrame(bytes: Uint8Array): void {
    if (this.#end) return;
    let call: z.output<typeof request>;
    try {
      call = this.#readRequest(bytes);
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      this.#log.warn({ code: error.code, problem: error.message }, "a control connection is ended");
      this.close({ code: error.code, message: error.message, fatal: true });
      return;
    }
    const most = this.role === "client" ? MAX_CLIENT_PENDING : MAX_PEER_PENDING;
    if (this.#pending >= most) {
      this.#replyError(
        call.id,
        new ControlError("busy", `${most} requests of this connection are unanswered`),
      );
      return;
    }
    this.#pending += 1;
    void this.#answer(call).finally(() => {
      this.#pending -= 1;
    });
  }

  #readRequest(bytes: Uint8Array): z.output<typeof request> {
    const maxBytes = this.role === "client" ? MAX_CLIENT_REQUEST_BYTES : MAX_CONTROL_BYTES;
    const message = decodeMessage(bytes, { maxBytes, maxValues: MAX_REQUEST_VALUES });
    const parsed = request.safeParse(message);
    if (parsed.success) return parsed.data;
    const problem = describeIssues(parsed.error.issues, message);
    throw new ControlError("bad-message", `a request is {id, method, params}: ${problem}`);
  }

  /** Never rejects. */
  async #answer(call: z.output<typeof request>): Promise<void> {
    const { method, params } = call;
    const { identity, role } = this;
    const beganUs = this.#clock.nowUs();
    let error: unknown;
    try {
      const result = await this.#run(method, params);
      this.#reply({ id: call.id, result });
    } catch (thrown) {
      error = thrown;
      this.#replyError(call.id, thrown, method);
    }
    this.#onAnswered({ identity, role, method, params, error, tookUs: this.#clock.nowUs() - beganUs });
  }

  async #run(method: string, params: Record<string, unknown>): Promise<object> {
    if (!isMethod(method)) {
      throw new ControlError("unknown-method", `${method} is not a method of this agent`);
    }
    if (METHODS[method].role !== this.role) {
      throw new ControlError("forbidden", `${method} is for connections of the role ${METHODS[method].role}`);
    }
    requireAccess(this.identity, method);
    const parsed = METHODS[method].params.safeParse(params);
    if (!parsed.success) {
      throw new ControlError("bad-params", `${method}: ${describeIssues(parsed.error.issues, params)}`);
    }
    if (method === "events.subscribe") return this.#subscribe(parsed.data as Params<"events.subscribe">);
    const handler = this.#handlers[method];
    if (!handler) throw new ControlError("unknown-method", `${method} is not a method of this agent`);
    const result = withoutUndefined(await handler(parsed.data as never, { session: this }));
    const checked = METHODS[method].result.safeParse(result);
    if (checked.success) return checked.data;
    throw new ControlError(
      "internal",
      `the result of ${method}: ${describeIssues(checked.error.issues, result)}`,
    );
  }

  #subscribe(params: Params<"events.subscribe">): Result<"events.subscribe"> {
    for (const topic of params.topics) requireTopic(this.identity, topic);
    this.#topics.clear();
    for (const topic of params.topics) this.#topics.add(topic);
    return { topics: [...this.#topics] };
  }

  #reply(reply: { id: number; result: object }): void {
    if (this.#end) return;
    const bytes = encodeMessage(reply);
    if (this.#channel.queuedBytes + bytes.length > REPLY_BACKLOG_BYTES) {
      this.close({ code: "too-slow", message: "the client does not read its answers", fatal: true });
      return;
    }
    this.#channel.send(bytes);
  }

  #replyError(id: number, thrown: unknown, method?: string): void {
    if (this.#end) return;
    const ours = !(thrown instanceof CodedError) || thrown.code === "internal";
    if (ours) this.#log.error({ err: thrown, method }, "a request failed for an internal reason");
    const error = {
      code: thrown instanceof CodedError ? thrown.code : "internal",
      message: messageOf(thrown).slice(0, MAX_MESSAGE_CHARACTERS),
    };
    const bytes = encodeMessage({ id, error });
    if (this.#channel.queuedBytes + bytes.length > REPLY_BACKLOG_BYTES) {
      this.close({ code: "too-slow", message: "the client does not read its answers", fatal: true });
      return;
    }
    this.#channel.send(bytes);
  }

  #finish(end: ChannelEnd): void {
    if (this.#end) return;
    this.#end = end;
    this.#laggedTimer?.cancel();
    for (const handler of [...this.#endHandlers]) handler(end);
    this.#endHandlers.clear();
  }
}

function isTopic(event: EventName): event is Topic {
  return (TOPICS as readonly string[]).includes(event);
}
