import { codeOf, type Clock, type Log } from "../../base/index.js";
import { RpcServerSession, type CallContext, type Handlers } from "../../control/index.js";
import type { Connection } from "../../lane/index.js";
import type { EventHub } from "../events.js";

/** Methods that only look, or come in streams: not worth a line in the log each time. */
const QUIET =
  /^(agent\.info|guest\.(list|show|logs|console\.input)|transfer\.(list|show)|peer\.(list|info|show|putFile))$/;

type AnyHandler = (params: object, context: CallContext) => Promise<object>;

/** The control connections of this agent, and what is answered on them. */
export class Sessions {
  readonly #handlers: { client: Handlers<"client">; peer: Handlers<"peer"> };
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #sessions = new Set<RpcServerSession>();

  constructor(options: {
    client: Handlers<"client">;
    peer: Handlers<"peer">;
    events: EventHub;
    clock: Clock;
    log: Log;
  }) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#handlers = {
      client: this.#audited(options.client, "client"),
      peer: this.#audited(options.peer, "peer"),
    };
    options.events.on("guest", (data) => this.#sendToAll("guest", data));
    options.events.on("transfer", (data) => this.#sendToAll("transfer", data));
  }

  /** Answers commands on a connection until it ends. */
  take(connection: Connection): void {
    const log = this.#log.child({ remote: connection.remote, who: connection.identity.name });
    const common = { identity: connection.identity, clock: this.#clock, log };
    const session =
      connection.hello.role === "client"
        ? new RpcServerSession(connection, { ...common, role: "client", handlers: this.#handlers.client })
        : new RpcServerSession(connection, { ...common, role: "peer", handlers: this.#handlers.peer });
    this.#sessions.add(session);
    session.onEnd(() => this.#sessions.delete(session));
  }

  close(): void {
    for (const session of [...this.#sessions]) {
      session.close({ code: "closed", message: "the agent is stopping", fatal: false });
    }
  }

  #sendToAll<Name extends "guest" | "transfer">(
    name: Name,
    data: Parameters<typeof RpcServerSession.prototype.sendEvent<Name>>[1],
  ): void {
    for (const session of this.#sessions) session.sendEvent(name, data);
  }

  /** The same handlers, each leaving a line that says who asked for what and how it went. */
  #audited<T extends Handlers<"client"> | Handlers<"peer">>(handlers: T, role: string): T {
    const audited = Object.entries(handlers).map(([method, handler]) => [
      method,
      QUIET.test(method) ? handler : this.#audit(method, role, handler as AnyHandler),
    ]);
    return Object.fromEntries(audited) as T;
  }

  #audit(method: string, role: string, handler: AnyHandler): AnyHandler {
    return async (params, context) => {
      const beganUs = this.#clock.nowUs();
      const line = { method, role, params: withoutBytes(params) };
      const tookMs = () => (this.#clock.nowUs() - beganUs) / 1000;
      try {
        const result = await handler(params, context);
        this.#log.info({ ...line, tookMs: tookMs() }, "command");
        return result;
      } catch (error) {
        this.#log.warn({ ...line, tookMs: tookMs(), code: codeOf(error), err: error }, "command failed");
        throw error;
      }
    };
  }
}

/** Parameters as they may be logged: no content, and no token that lets lanes in. */
function withoutBytes(params: object): object {
  return Object.fromEntries(
    Object.entries(params).map(([name, value]) => {
      if (value instanceof Uint8Array) return [name, `${value.length} bytes`];
      return [name, name === "token" ? "…" : (value as unknown)];
    }),
  );
}
