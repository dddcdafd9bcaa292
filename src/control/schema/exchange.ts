import { z } from "zod";
import {
  DEFAULT_EXCHANGE_WAIT_MS,
  DEFAULT_PARALLEL_EXCHANGES,
  MAX_EXCHANGE_WAIT_MS,
  MAX_LISTED,
  MAX_PARALLEL_EXCHANGES,
} from "../limits.js";
import { count, durationUs, guestName, message, optional, uuid, wallMs } from "./common.js";
import { emulatorChoice } from "./guest.js";

/**
 * Where a guest stands in an exchange of every guest of its host. `waiting`: its turn has not come, or it is busy, which `reason` says. `ended`: it has no emulator any more. `left`: the
 * run was stopped before its turn.
 */
export const EXCHANGE_STANDINGS = [
  "waiting",
  "under-way",
  "already-there",
  "exchanged",
  "refused",
  "failed",
  "ended",
  "left",
] as const;
export type ExchangeStanding = (typeof EXCHANGE_STANDINGS)[number];

const version = z.string().max(128);

export const exchangedGuest = z.object({
  id: uuid,
  name: guestName,
  standing: z.enum(EXCHANGE_STANDINGS),
  /** Versions of the emulator it was found in, and of the one it was brought to. */
  from: optional(version),
  to: optional(version),
  /** How long it stood still; absent when the agent ended before it could say. */
  pauseUs: optional(durationUs),
  /** Why it is refused, has failed or waits; of one that was exchanged, what is wrong nevertheless. */
  reason: optional(z.object({ code: z.string().max(64), message })),
});
export type ExchangedGuest = z.infer<typeof exchangedGuest>;

/** An exchange of every guest of a host, the latest there was. */
export const exchangeRun = z.object({
  /** As it was asked for; absent for the one that guests start on. */
  emulator: optional(z.string().max(4095)),
  parallel: count,
  /** How long it waits for a guest that is busy. */
  waitMs: count,
  /** `interrupted`: the agent is about to end, and the next one goes on. `stopped`: as was asked for, guests are left. */
  phase: z.enum(["running", "stopping", "interrupted", "stopped", "done"]),
  startedAtMs: wallMs,
  endedAtMs: optional(wallMs),
  guests: z.array(exchangedGuest).max(MAX_LISTED),
});
export type ExchangeRunView = z.infer<typeof exchangeRun>;

const one = z.object({ run: exchangeRun });

export const EXCHANGE_METHODS = {
  /** Brings every guest of the host to another emulator. Answers when that is written down; it goes on without the caller. */
  "exchange.start": {
    role: "client",
    params: z.strictObject({
      emulator: optional(emulatorChoice),
      parallel: z.int().min(1).max(MAX_PARALLEL_EXCHANGES).default(DEFAULT_PARALLEL_EXCHANGES),
      waitMs: z.int().min(0).max(MAX_EXCHANGE_WAIT_MS).default(DEFAULT_EXCHANGE_WAIT_MS),
    }),
    result: one,
  },
  /** The latest; without `run` there was none. */
  "exchange.show": {
    role: "client",
    params: z.strictObject({}),
    result: z.object({ run: optional(exchangeRun) }),
  },
  /** Begins with no further guest. */
  "exchange.stop": { role: "client", params: z.strictObject({}), result: one },
} as const;
