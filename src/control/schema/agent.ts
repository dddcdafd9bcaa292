import { z } from "zod";
import { architecture, count, machineName, optional, wallMs } from "./common.js";

/** What an agent says of itself to its clients. */
export const agentInfo = z.object({
  name: z.string().max(255),
  version: z.string().max(64),
  apiVersion: z.int().min(1),
  pid: count,
  kernel: z.string().max(255),
  startedAtMs: wallMs,
  /** Where it listens, as `unix:/path` and `ws://host:port`. */
  addresses: z.array(z.string().max(255)).max(16),
  emulators: z
    .array(
      z.object({
        architecture,
        version: z.string().max(128),
        machine: machineName,
        accelerator: z.string().max(32),
      }),
    )
    .max(8),
  memory: z.object({ totalBytes: count, availableBytes: count }),
  guests: count,
  transfers: count,
  /** What was sent to other hosts of base disks and frozen layers since it was started, as it was on the wire. */
  blocks: z.object({ sentBytes: count }),
  /** Transfers that it plays with itself when it has just been started, so that its code is compiled before the first real one. */
  rehearsal: optional(
    z.object({
      /** `off` by configuration; `waiting` until there is no transfer; `playing`; `done`; `failed` for a reason that is no failure of the agent. */
      phase: z.enum(["off", "waiting", "playing", "done", "failed"]),
      transfers: count,
      /** How often it ended at once for a real transfer. */
      interrupted: count,
      /** Of this agent. */
      processorMs: count,
      problem: optional(z.string().max(512)),
    }),
  ),
  /** How this agent came to run, when it took over from another one: the longest that any guest can have waited. */
  takeover: optional(z.object({ pid: count, waitedMs: z.number().min(0) })),
});
export type AgentInfo = z.infer<typeof agentInfo>;

/** Most lines of the audit log in one answer. */
const MAX_AUDIT_ENTRIES = 1000;

/** Who commanded what, when, and how it went. */
export const auditEntry = z.object({
  /** ISO 8601, UTC. */
  at: z.string().max(40),
  who: z.string().max(1024),
  shown: z.enum(["certificate", "key", "local"]),
  from: z.string().max(255),
  role: z.enum(["client", "peer"]),
  method: z.string().max(64),
  /** JSON, cut when it is long; without secrets and without the content of files and memory. */
  params: z.string().max(2048),
  /** `done`, or the code of what was wrong. */
  outcome: z.string().max(64),
  problem: optional(z.string().max(512)),
  tookMs: z.number(),
});
export type AuditEntry = z.infer<typeof auditEntry>;

export const TOPICS = ["guest", "transfer"] as const;
export type Topic = (typeof TOPICS)[number];

export const AGENT_METHODS = {
  "agent.info": { role: "client", params: z.strictObject({}), result: agentInfo },
  "agent.audit": {
    role: "client",
    params: z.strictObject({ count: z.int().min(1).max(MAX_AUDIT_ENTRIES).default(100) }),
    result: z.object({ entries: z.array(auditEntry).max(MAX_AUDIT_ENTRIES) }),
  },
  /** Certificates, keys and lists of revoked certificates are read again at once. */
  "agent.reload": {
    role: "client",
    params: z.strictObject({}),
    result: z.object({ subject: optional(z.string().max(1024)), endsAtMs: optional(wallMs) }),
  },
  /** What a new agent of this host needs to take over: this process, and the sockets it listens on by their descriptors here. */
  "agent.offer": {
    role: "client",
    params: z.strictObject({}),
    result: z.object({
      pid: count,
      listeners: z.array(z.object({ kind: z.enum(["tcp", "unix"]), descriptor: count })).max(2),
    }),
  },
  /** Ends the agent at once for a new one to go on with its guests and transfers. When it began to, in µs of the machine's monotonic clock. */
  "agent.leave": { role: "client", params: z.strictObject({}), result: z.object({ leftUs: count }) },
  /** The topics replace those of an earlier call; an empty list ends them all. */
  "events.subscribe": {
    role: "client",
    params: z.strictObject({
      topics: z
        .array(z.enum(TOPICS))
        .max(TOPICS.length)
        .default([...TOPICS]),
    }),
    result: z.object({ topics: z.array(z.enum(TOPICS)).max(TOPICS.length) }),
  },
} as const;
