import { z } from "zod";
import { architecture, count, machineName, wallMs } from "./common.js";

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
});
export type AgentInfo = z.infer<typeof agentInfo>;

export const TOPICS = ["guest", "transfer"] as const;
export type Topic = (typeof TOPICS)[number];

export const AGENT_METHODS = {
  "agent.info": { role: "client", params: z.strictObject({}), result: agentInfo },
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
