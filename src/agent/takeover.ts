import {
  CodedError,
  deferred,
  LOCAL_IDENTITY,
  messageOf,
  withDeadline,
  type Clock,
  type Log,
} from "../base/index.js";
import { RpcClient, type CallContext, type Handlers } from "../control/index.js";
import { dial, type Listener } from "../lane/index.js";
import { takeDescriptor } from "../memory/index.js";
import type { LoadedConfiguration } from "./configuration/index.js";
import { AgentError } from "./errors.js";

const CALL_DEADLINE_MS = 5000;
/** What an agent that leaves may take: guests that stand still in a pause run on first. */
const LEAVE_DEADLINE_MS = 15_000;

/** What an agent has from the one it takes over from. */
export interface Inheritance {
  /** Process of the agent that left. */
  pid: number;
  /** When it began to leave, in microseconds of the machine's monotonic clock, which both processes share. */
  leftUs: number;
  /** Descriptors, of this process now, of the sockets it listened on. */
  tcp: number | undefined;
  unix: number | undefined;
}

/**
 * Has the agent that runs with this configuration leave, and inherits the sockets it listens on, so that nobody who connects meanwhile is turned away. Guests and
 * transfers stay as they are, for this agent to go on with.
 * @param options.beforeIt is waited for as soon as nothing but the leaving is left.
 * @throws AgentError `no-takeover` when no agent answers on the configured socket, or it does not leave.
 */
export async function takeOver(
  configuration: LoadedConfiguration,
  { clock, log, beforeIt }: { clock: Clock; log: Log; beforeIt: () => Promise<void> },
): Promise<Inheritance> {
  const { socket } = configuration;
  const options = { deadlineMs: CALL_DEADLINE_MS };
  let client: RpcClient | undefined;
  try {
    const hello = { purpose: "control", role: "client" } as const;
    const connection = await dial({ url: `unix:${socket}`, hello, clock, ...options });
    client = new RpcClient(connection, { clock, log });
    const ended = deferred<void>();
    client.onEnd(() => ended.resolve());
    const { pid, listeners } = await client.call("agent.offer", {}, options);
    const descriptors = new Map(
      listeners.map(({ kind, descriptor }) => [kind, takeDescriptor(pid, descriptor)]),
    );
    await beforeIt();
    const { leftUs } = await client.call("agent.leave", {}, options);
    await withDeadline(clock, LEAVE_DEADLINE_MS, `the end of the agent of process ${pid}`, ended.promise);
    return { pid, leftUs, tcp: descriptors.get("tcp"), unix: descriptors.get("unix") };
  } catch (cause) {
    if (!(cause instanceof CodedError)) throw cause;
    throw new AgentError(
      "no-takeover",
      `cannot take over from the agent on ${socket}: ${messageOf(cause)}; start rametd without --takeover when none runs`,
      { cause },
    );
  } finally {
    client?.close();
  }
}

/** The other side: what a new agent of this host asks of the one that runs. Only over the unix socket, since descriptors do not travel. */
export function takeoverHandlers(options: {
  clock: Clock;
  listeners: () => { kind: "tcp" | "unix"; listener: Listener }[];
  leave: () => void;
}): Pick<Handlers<"client">, "agent.offer" | "agent.leave"> {
  const requireLocal = ({ session }: CallContext): void => {
    if (session.identity === LOCAL_IDENTITY) return;
    throw new AgentError("bad-request", "an agent is taken over from its own host, through its unix socket");
  };
  return {
    "agent.offer": async (_params, context) => {
      requireLocal(context);
      const listeners = options
        .listeners()
        .map(({ kind, listener }) => ({ kind, descriptor: listener.descriptor }));
      return { pid: process.pid, listeners };
    },
    "agent.leave": async (_params, context) => {
      requireLocal(context);
      const leftUs = Math.floor(options.clock.nowUs());
      // After the answer is on its way: this very connection ends, too.
      options.clock.soon(options.leave);
      return { leftUs };
    },
  };
}
