import { z } from "zod";
import { MAX_CHILDREN, MAX_FORWARDS, MAX_LINK_DEADLINE_MS, MAX_LISTED } from "../limits.js";
import {
  count,
  durationUs,
  errorView,
  forwardText,
  guestName,
  hostAddress,
  memoryBytes,
  message,
  optional,
  sharedDirectory,
  u32,
  wallMs,
} from "./common.js";

export const transferKind = z.enum(["fork", "migrate"]);
export type TransferKind = z.infer<typeof transferKind>;

/** Which side of a transfer is told of. An agent that forks to itself has both. */
export const transferRole = z.enum(["parent", "child"]);
export type TransferRole = z.infer<typeof transferRole>;

/**
 * `preparing`: the child's host reserves memory and an emulator. `precopying`: memory is copied ahead while the parent runs (a migration with a pre-copy). `arming`: the parent's memory is write-protected while it
 * runs. `pausing`: the parent stands still. `starting`: the child loads the device state. `paging`: the child runs (or is
 * held) and memory is on its way. The last three are final.
 */
export const TRANSFER_PHASES = [
  "preparing",
  "precopying",
  "arming",
  "pausing",
  "starting",
  "paging",
  "complete",
  "failed",
  "cancelled",
] as const;
export const transferPhase = z.enum(TRANSFER_PHASES);
export type TransferPhase = z.infer<typeof transferPhase>;

/** Whether a transfer in this phase is over, and will be in no other. */
export function isFinal(phase: TransferPhase): boolean {
  return phase === "complete" || phase === "failed" || phase === "cancelled";
}

/** The parts of the parent's pause in microseconds, by name (`stopUs`, `rearmUs`, `saveUs`, `resumeUs`, …). */
export const pauseParts = z.record(z.string().max(32), z.number());
export type PauseParts = z.infer<typeof pauseParts>;

const compression = z.enum(["auto", "lz4", "none"]);

/** What a transfer is worth beside the others of its parent's host, where they share a processor or a link. */
const priority = z.enum(["high", "normal", "low"]);

/**
 * When a fork came to what, by name (`preparedUs`, `armedUs`, `resumedUs`, …), in microseconds from the command's arrival; and on the child's host, from the
 * start command's arrival, `childLoadUs` and `childRunUs`.
 */
const startMarks = z.record(z.string().max(32), z.number());
export type StartMarks = z.infer<typeof startMarks>;

/** A transfer as one side of it sees it. Pages are counted in units of 4 KiB. */
export const transferView = z.object({
  id: u32,
  kind: transferKind,
  role: transferRole,
  /** The guest of this side: the parent's name on the parent's, the child's on the child's. */
  guest: guestName,
  /** The guest of the other side and its host. */
  peerGuest: guestName,
  host: z.string().max(255),
  phase: transferPhase,
  pages: z.object({
    /** All pages of the guest's memory, and those that need no more work (holes and zero pages among them). */
    total: count,
    received: count,
    /** Of the received ones: asked for by a fault, sent ahead of a write, swept; and known to be zero. */
    fault: count,
    push: count,
    sweep: count,
    zero: count,
    /** Arrived again and dropped. */
    duplicates: count,
  }),
  bytes: z.object({ control: count, urgent: count, bulk: count }),
  /** How long the parent stood still; absent before, and for a migration whose parent never resumes. */
  pauseUs: optional(durationUs),
  pauseParts: optional(pauseParts),
  /** From the command's arrival at the parent's agent to the child's first instruction. */
  firstInstructionUs: optional(durationUs),
  startMarks: optional(startMarks),
  copies: optional(z.object({ pages: count, budgetPages: count })),
  /** Of memory copied ahead: rounds begun, pages sent (again too), and pages the child lacks, in the end those left to be sent after the switch. */
  precopy: optional(z.object({ round: count, sent: count, due: count })),
  /**
   * Children of one fork that pass on what they are given. At the parent: who passes on to this child, and whether the parent holds back for that. At the
   * child: whether another passes on to it, pages it was so given, to how many it passes on, and pages passed on and left out.
   */
  relay: optional(
    z.object({
      from: optional(z.string().max(255)),
      holding: optional(z.boolean()),
      fed: optional(z.boolean()),
      pages: optional(count),
      to: optional(count),
      passedOn: optional(count),
      dropped: optional(count),
    }),
  ),
  /** Faults served, children waiting now, and how long a child waited. */
  faults: optional(
    z.object({
      count,
      waiting: count,
      p50Us: durationUs,
      p90Us: durationUs,
      p99Us: durationUs,
      p999Us: optional(durationUs),
      maxUs: durationUs,
    }),
  ),
  /**
   * Of the parent's side: what was chosen, how it is sent now, and what the latest probe of `auto` has measured: bytes of memory that the child took each second
   * raw and as lz4, bytes of memory in a byte of lz4, and what compressing a MiB costs the parent.
   */
  compression: optional(
    z.object({
      choice: compression,
      now: z.enum(["lz4", "none"]),
      measured: optional(
        z.object({
          rawBytesPerSecond: count,
          lz4BytesPerSecond: count,
          ratio: z.number().min(0),
          lz4UsPerMib: durationUs,
        }),
      ),
    }),
  ),
  /** Of the parent's side, where one is used: pages earlier children touched first, and those of them sent ahead of the sweep (counted as swept, too). */
  workingSet: optional(z.object({ pages: count, sent: count })),
  /** Times the page lanes were lost and dialled again. */
  reconnects: optional(count),
  /** While it runs, whether the page lanes are there; when they were lost (wall time) and why, while they are dialled again. */
  link: optional(
    z.discriminatedUnion("state", [
      z.object({ state: z.literal("linked") }),
      z.object({ state: z.literal("reconnecting"), sinceMs: wallMs, why: message }),
    ]),
  ),
  verify: optional(z.object({ checked: count, mismatches: count })),
  /** Of a migration with disks: how much of their files the child's host has of what it lacked, and why nothing comes, if that is so. */
  disks: optional(z.object({ hereBytes: count, fileBytes: count, message: optional(message) })),
  /** Pages that a child on the parent's host shares with it still; such a child is sent none. */
  shared: optional(count),
  /** Of the parent's side: how memory is sent, as chosen at the start or by `transfer.steer`; without a rate there is no limit. */
  sweep: optional(z.enum(["on", "held"])),
  rateLimitBytesPerSecond: optional(count),
  priority: optional(priority),
  startedAtMs: wallMs,
  /** Since the start, or from start to end once it is over. Rates are differences of `bytes` over differences of this. */
  elapsedMs: z.number().min(0),
  /** What is going on, or why it failed. */
  message: optional(message),
  error: optional(errorView),
});
export type TransferView = z.infer<typeof transferView>;

/** How one child came out of a fork or migration, at the time it runs (or is held), or has failed. */
export const childOutcome = z.object({
  transfer: u32,
  guest: guestName,
  host: z.string().max(255),
  state: z.enum(["running", "paused", "failed"]),
  memoryBytes: optional(memoryBytes),
  pauseUs: optional(durationUs),
  pauseParts: optional(pauseParts),
  /** On the child's host: from the start command to the device state loaded. */
  loadUs: optional(durationUs),
  firstInstructionUs: optional(durationUs),
  startMarks: optional(startMarks),
  error: optional(errorView),
});
export type ChildOutcome = z.infer<typeof childOutcome>;

const sweep = z.enum(["on", "held"]);
const rate = z.int().min(1024);
/** How long a child may be out of reach before it is given up; without it, it is waited for. */
const linkDeadlineMs = z.int().min(1000).max(MAX_LINK_DEADLINE_MS);

/** Fork one guest into one or many children. Refused whole when the request itself cannot be met. */
export const forkParams = z
  .strictObject({
    name: guestName,
    /** Hosts, filled in turn; without any the children run on this agent's host. */
    to: z.array(hostAddress).max(MAX_CHILDREN).default([]),
    /** Children in all; without it one for each host named, or one. */
    count: optional(z.int().min(1).max(MAX_CHILDREN)),
    /** One name for each child; without them `NAME-1`, `NAME-2`, … as far as they are free. */
    names: optional(z.array(guestName).min(1).max(MAX_CHILDREN)),
    /** Forwards of the children; child number i (from 0) gets the host port plus i. Only with a user network. */
    forwards: z.array(forwardText).max(MAX_FORWARDS).default([]),
    /** `isolated`: the children's network is cut off. `attached`: they have the parent's kind of network. */
    network: z.enum(["isolated", "attached"]).default("isolated"),
    /** How children on the parent's own host get its memory: they map it and have a page of their own once either side writes it, or are sent all of it. */
    memory: z.enum(["shared", "copied"]).default("shared"),
    /** Compare the hash of every page at the instant of the fork with what each child was given. */
    verify: z.boolean().default(false),
    /** Load the children, but hold them before their first instruction until `transfer.run`. */
    paused: z.boolean().default(false),
    sweep: sweep.default("on"),
    /** How children on different other hosts pass on to each other what they are given, so that it leaves the parent's host once. */
    relay: z.enum(["chain", "tree", "none"]).default("chain"),
    compression: compression.default("auto"),
    /** Bytes of bulk each second and child, at most. */
    rateLimitBytesPerSecond: optional(rate),
    priority: priority.default("normal"),
    /** Send what earlier children of the guest touched first ahead of the sweep, and learn from these. */
    workingSet: z.boolean().default(true),
    linkDeadlineMs: optional(linkDeadlineMs),
  })
  .check((context) => {
    const { to, count: children, names } = context.value;
    const wanted = children ?? Math.max(to.length, names?.length ?? 1);
    const refuse = (path: string, rule: string) =>
      context.issues.push({ code: "custom", path: [path], message: rule, input: context.value });
    if (wanted < to.length) refuse("count", `must be at least the number of hosts (${to.length})`);
    if (names && names.length !== wanted)
      refuse("names", `must have one name for each of the ${wanted} children`);
    if (names && new Set(names).size !== names.length) refuse("names", "must all differ");
  });

/** How many children a fork makes. */
export function childrenOf(params: z.output<typeof forkParams>): number {
  return params.count ?? Math.max(params.to.length, params.names?.length ?? 1);
}

export const migrateParams = z.strictObject({
  name: guestName,
  to: hostAddress,
  verify: z.boolean().default(false),
  /** Copy memory ahead while the guest runs, and send only the rest after the switch. */
  precopy: z.boolean().default(false),
  compression: compression.default("auto"),
  rateLimitBytesPerSecond: optional(rate),
  priority: priority.default("normal"),
  /** Send what children of the guest touched first ahead of the sweep. */
  workingSet: z.boolean().default(true),
  linkDeadlineMs: optional(linkDeadlineMs),
  /** A directory that both hosts have, for what the guest writes until the migration is complete. */
  writes: optional(sharedDirectory),
});

/** Changes how memory is sent, at once; what is not named stays. */
const steerParams = z
  .strictObject({
    transfer: u32,
    sweep: optional(sweep),
    /** Bytes of bulk each second, at most; 0 for no limit. */
    rateLimitBytesPerSecond: optional(z.union([z.literal(0), rate])),
    priority: optional(priority),
    compression: optional(compression),
  })
  .check((context) => {
    if (Object.keys(context.value).length > 1) return;
    context.issues.push({ code: "custom", path: [], message: "must change something", input: context.value });
  });

const rollbackParams = z.strictObject({
  name: guestName,
  /** Only say what it would mean. */
  dryRun: z.boolean().default(false),
  /** The child's host is out of reach, and the operator knows that the child does not run there. */
  force: z.boolean().default(false),
});

const rolledBack = z.object({
  transfer: u32,
  host: z.string().max(255),
  /** When the guest was stopped here; what it did elsewhere since is lost. */
  switchedAtMs: optional(wallMs),
  done: z.boolean(),
});

const outcomes = z.object({ transfers: z.array(childOutcome).max(MAX_CHILDREN) });
const byId = z.strictObject({
  transfer: u32,
  /** Which side, when this agent has both; the parent's without it. */
  role: optional(transferRole),
});
const oneTransfer = z.object({ transfer: transferView });

export const TRANSFER_METHODS = {
  "guest.fork": { role: "client", params: forkParams, result: outcomes },
  "guest.migrate": { role: "client", params: migrateParams, result: outcomes },
  /** Undoes a migration that has switched and is not complete: the guest runs on here, as it was at the switch. */
  "guest.rollback": { role: "client", params: rollbackParams, result: rolledBack },
  "transfer.list": {
    role: "client",
    params: z.strictObject({ active: z.boolean().default(false) }),
    result: z.object({ transfers: z.array(transferView).max(MAX_LISTED) }),
  },
  "transfer.show": { role: "client", params: byId, result: oneTransfer },
  "transfer.cancel": {
    role: "client",
    params: z.strictObject({ transfer: u32, reason: message.default("cancelled by the user") }),
    result: oneTransfer,
  },
  "transfer.sweep": {
    role: "client",
    params: z.strictObject({ transfer: u32, sweep }),
    result: oneTransfer,
  },
  "transfer.steer": { role: "client", params: steerParams, result: oneTransfer },
  "transfer.run": { role: "client", params: z.strictObject({ transfer: u32 }), result: oneTransfer },
} as const;
