import type { Clock, Log } from "../../base/index.js";
import { RpcServerSession, type AnsweredCall, type Handlers } from "../../control/index.js";
import type { Connection } from "../../lane/index.js";
import type { EventHub } from "../events.js";
import type { AuditLogs } from "../store/audit-logs.js";
import { isShownTo } from "../tenants/own.js";
import { auditEntry, isAudited } from "./audit.js";

/** The control connections of this agent, and what is answered on them. */
export class Sessions {
  readonly #handlers: { client: Handlers<"client">; peer: Handlers<"peer"> };
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #audit: AuditLogs;
  readonly #sessions = new Set<RpcServerSession>();

  constructor(options: {
    client: Handlers<"client">;
    peer: Handlers<"peer">;
    events: EventHub;
    audit: AuditLogs;
    clock: Clock;
    log: Log;
  }) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#handlers = { client: options.client, peer: options.peer };
    this.#audit = options.audit;
    options.events.on("guest", (data) => this.#sendToAll("guest", data, data.guest.name));
    options.events.on("transfer", (data) => this.#sendToAll("transfer", data, data.transfer.guest));
  }

  /** Answers commands on a connection until it ends. */
  take(connection: Connection): void {
    const log = this.#log.child({ remote: connection.remote, who: connection.identity.name });
    const { identity, remote } = connection;
    const onAnswered = (call: AnsweredCall): void => this.#onAnswered(call, remote);
    const common = { identity, clock: this.#clock, log, onAnswered };
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

  /** @param guest whom it is about: a tenant's holder is told of that tenant's guests. */
  #sendToAll<Name extends "guest" | "transfer">(
    name: Name,
    data: Parameters<typeof RpcServerSession.prototype.sendEvent<Name>>[1],
    guest: string,
  ): void {
    for (const session of this.#sessions)
      if (isShownTo(session.identity, guest)) session.sendEvent(name, data);
  }

  #onAnswered(call: AnsweredCall, remote: string): void {
    if (!isAudited(call)) return;
    const entry = auditEntry(call, { clock: this.#clock, remote });
    this.#audit.append(entry, call.identity.tenant);
    if (call.error === undefined) this.#log.info(entry, "command");
    else this.#log.warn({ ...entry, err: call.error }, "command failed");
  }
}
