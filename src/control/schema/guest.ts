import { z } from "zod";
import { MAX_MEMORY_PAGES, PAGE_BYTES } from "../../base/index.js";
import {
  MAX_CHILDREN,
  MAX_CONSOLE_BYTES,
  MAX_FORWARDS,
  MAX_GUEST_DISKS,
  MAX_LISTED,
  MAX_LOG_LINES,
  MAX_LOG_LINE_CHARACTERS,
} from "../limits.js";
import {
  append,
  architecture,
  byteString,
  count,
  cpuCount,
  filePath,
  forwardText,
  guestName,
  guestNetwork,
  hostAddress,
  interfaceName,
  macAddress,
  machineName,
  memoryBytes,
  message,
  nothing,
  optional,
  u32,
  uuid,
  wallMs,
} from "./common.js";
import { guestDisk, requestedDisk } from "./disk.js";

export const DEFAULT_MEMORY_MIB = 256;
export const DEFAULT_STOP_DEADLINE_MS = 30_000;
export const DEFAULT_LOG_LINES = 100;

/**
 * `frozen`: a template, which stands still for its children. `suspended`: no emulator has it, and it can go on in one. `receiving`: a child whose memory is not complete. `migrated`: it runs on elsewhere. `crashed`: the emulator ended by itself. `unreadable`: there is a guest
 * whose record the agent cannot read; it is left as it is, and may run.
 */
export const GUEST_STATES = [
  "starting",
  "running",
  "paused",
  "frozen",
  "suspended",
  "receiving",
  "migrated",
  "stopped",
  "crashed",
  "unreadable",
] as const;
export const guestState = z.enum(GUEST_STATES);
export type GuestState = z.infer<typeof guestState>;

/** What keeps a guest's emulator to itself, as the kernel has it. */
export const guestIsolation = z.object({
  /** The user it runs as. */
  user: count,
  withoutCapabilities: z.boolean(),
  noNewPrivileges: z.boolean(),
  /** Whether its system calls are filtered. */
  systemCallFilter: z.boolean(),
  /** Whether it has a file system of its own. */
  ownFiles: z.boolean(),
  /** Limits of its cgroup; absent ones are none. */
  limits: z.object({
    memoryBytes: optional(count),
    tasks: optional(count),
    /** In hundredths of one processor. */
    cpuPercent: optional(count),
  }),
});
export type GuestIsolation = z.infer<typeof guestIsolation>;

/** A guest as its agent sees it. */
export const guestView = z.object({
  id: uuid,
  name: guestName,
  state: guestState,
  architecture,
  machine: machineName,
  memoryBytes,
  cpus: cpuCount,
  /** Absent when it boots from its first disk, by the firmware. */
  kernel: optional(z.string().max(4095)),
  initrd: optional(z.string().max(4095)),
  append,
  /** Version of the emulator that runs it, such as `7.2.19`; absent when none does. */
  emulatorVersion: optional(z.string().max(128)),
  pid: optional(count),
  isolation: optional(guestIsolation),
  network: guestNetwork,
  /** Absent when it has none. */
  disks: optional(z.array(guestDisk).max(MAX_GUEST_DISKS)),
  /** What it was forked or migrated from. */
  parent: optional(z.object({ guest: guestName, host: z.string().max(255), transfer: u32 })),
  /** The guest of this host whose memory it has mapped privately: what neither has written since the fork is there once for both. */
  sharesWith: optional(guestName),
  /** Guests of this host that share its memory so. */
  sharers: optional(count),
  /** While it is suspended, and its memory is there. */
  suspended: optional(
    z.object({
      stoppedAtMs: wallMs,
      /** The emulator that saved it. */
      emulatorVersion: z.string().max(128),
      /** What its device state and its memory take of the host. */
      stateBytes: count,
      allocatedBytes: count,
    }),
  ),
  /** Transfers of this agent that the guest takes part in and that are not over. */
  transfers: z.array(u32).max(MAX_LISTED),
  createdAtMs: wallMs,
  /** Why it is in its state, where that needs saying. */
  message: optional(message),
});
export type GuestView = z.infer<typeof guestView>;

const requestedNetwork = z.discriminatedUnion("mode", [
  z.strictObject({ mode: z.literal("none") }),
  z.strictObject({
    mode: z.literal("user"),
    mac: optional(macAddress),
    forwards: z.array(forwardText).max(MAX_FORWARDS).default([]),
  }),
  z.strictObject({
    mode: z.literal("tap"),
    mac: optional(macAddress),
    bridge: optional(interfaceName),
  }),
]);

const byName = z.strictObject({ name: guestName });
const oneGuest = z.object({ guest: guestView });

/** Starts a new guest. Answers when its processors run. While disks are copied whole, it ends when the connection does, and nothing is left of it. */
export const runParams = z
  .strictObject({
    name: guestName,
    /** Without it the guest boots from its first disk. */
    kernel: optional(filePath),
    initrd: optional(filePath),
    append: append.default(""),
    memoryMiB: z
      .int()
      .min(16)
      .max((MAX_MEMORY_PAGES / (1024 * 1024)) * PAGE_BYTES)
      .default(DEFAULT_MEMORY_MIB),
    cpus: cpuCount.default(1),
    architecture: architecture.default("x86_64"),
    /** Versioned; without it the newest the emulator offers of its family. */
    machine: optional(machineName),
    network: requestedNetwork.default({ mode: "none" }),
    disks: z.array(requestedDisk).max(MAX_GUEST_DISKS).default([]),
    /** With it, `disk` events of this number tell how far disks are that are copied whole. */
    work: optional(u32),
  })
  .check((context) => {
    const { kernel, initrd, append, architecture: kind, disks } = context.value;
    if (kernel !== undefined) return;
    const refuse = (path: string | undefined, rule: string) =>
      context.issues.push({
        code: "custom",
        path: path === undefined ? [] : [path],
        message: rule,
        input: context.value,
      });
    if (initrd !== undefined) refuse("initrd", "must come with a kernel");
    if (append !== "") refuse("append", "must come with a kernel");
    if (kind !== "x86_64")
      refuse("architecture", "must be x86_64 without a kernel: no other emulator brings firmware");
    if (disks.length === 0) refuse(undefined, "must have a kernel, or a disk to boot from");
  });

/** Presses the power button and waits. A guest that is off already is answered as it is. */
export const stopParams = z.strictObject({
  name: guestName,
  deadlineMs: z.int().min(1).max(600_000).default(DEFAULT_STOP_DEADLINE_MS),
});

/** `follow` sends every later line as a `log` event, until the connection ends. */
export const logsParams = z.strictObject({
  name: guestName,
  source: z.enum(["emulator", "console"]).default("emulator"),
  lines: z.int().min(0).max(MAX_LOG_LINES).default(DEFAULT_LOG_LINES),
  follow: z.boolean().default(false),
});

/**
 * Keeps `count` emulators ready at each host, so that a fork of this guest to it starts at once: one with that kind of network, and those with forwards are
 * `attached`.
 */
export const warmParams = z.strictObject({
  name: guestName,
  to: z.array(hostAddress).max(MAX_CHILDREN).default([]),
  count: z.int().min(0).max(MAX_CHILDREN).default(1),
  network: z.enum(["isolated", "attached"]).default("isolated"),
});

/** An emulator of the host, by path, by version or the beginning of that. */
export const emulatorChoice = z
  .string()
  .max(4095)
  .regex(/^(\/[^\0]+|\d+(\.\d+){0,2})$/, "must be an absolute path or a version such as 10.0");

/** Brings a running guest to another emulator of its host; without one to what guests start on. */
export const exchangeParams = z.strictObject({ name: guestName, emulator: optional(emulatorChoice) });

/** Lets a suspended guest run on; without an emulator in what guests start on. */
export const resumeParams = z.strictObject({ name: guestName, emulator: optional(emulatorChoice) });

const emulatorProcess = z.object({ version: z.string().max(128), pid: count });

/** How an exchange went. */
export const exchangeOutcome = z.object({
  guest: guestView,
  from: emulatorProcess,
  to: emulatorProcess.extend({ path: z.string().max(4095) }),
  /** From the old emulator's STOP to the new one's RESUME, by their own clock, which is the host's. */
  pauseUs: z.number().min(0),
  /** What of that saving, loading and letting run took, as the agent saw it. */
  parts: z.object({ saveUs: count, loadUs: count, runUs: count }),
  /** All that went from one to the other. */
  stateBytes: count,
  /** What the memory file takes of the host, at the stop and when the guest ran on. */
  memory: z.object({ allocatedBeforeBytes: count, allocatedAfterBytes: count }),
  /** What is wrong nevertheless, such as a port that somebody else has now. */
  message: optional(message),
});
export type ExchangeOutcome = z.infer<typeof exchangeOutcome>;

/** How a suspended guest came to run on. */
export const resumeOutcome = z.object({
  guest: guestView,
  emulator: emulatorProcess.extend({ path: z.string().max(4095) }),
  /** From its stop to its first instruction since, by the host's clock; absent when it was paused, with its emulator. */
  stoodStillMs: optional(count),
  /** What is wrong nevertheless. */
  message: optional(message),
});
export type ResumeOutcome = z.infer<typeof resumeOutcome>;

/** Two running guests of one host exchange what the world knows them by: names, and their places in the network. */
export const swapParams = z.strictObject({ name: guestName, child: guestName });

/** How that went. */
export const swapOutcome = z.object({
  /** What is called `name` now, and was the child. */
  guest: guestView,
  /** What is called `child` now. */
  other: guestView,
  /** The longest that one of the ports, or the address, led to neither of both. */
  gapUs: count,
  /** Connections through forwarded ports that were ended, so that their clients come to the right guest. */
  cut: count,
  /** What is wrong nevertheless, such as a port of the former child that somebody else has now. */
  message: optional(message),
});
export type SwapOutcome = z.infer<typeof swapOutcome>;

const consoleId = z.strictObject({ console: u32 });
export const consoleBytes = byteString(MAX_CONSOLE_BYTES);

export const GUEST_METHODS = {
  "guest.run": { role: "client", params: runParams, result: oneGuest },
  "guest.list": {
    role: "client",
    params: z.strictObject({}),
    result: z.object({ guests: z.array(guestView).max(MAX_LISTED) }),
  },
  "guest.show": { role: "client", params: byName, result: oneGuest },
  "guest.stop": { role: "client", params: stopParams, result: oneGuest },
  "guest.kill": { role: "client", params: byName, result: oneGuest },
  "guest.freeze": { role: "client", params: byName, result: oneGuest },
  "guest.thaw": { role: "client", params: byName, result: oneGuest },
  "guest.exchange": { role: "client", params: exchangeParams, result: exchangeOutcome },
  "guest.suspend": { role: "client", params: byName, result: oneGuest },
  "guest.resume": { role: "client", params: resumeParams, result: resumeOutcome },
  "guest.swap": { role: "client", params: swapParams, result: swapOutcome },
  "guest.remove": { role: "client", params: byName, result: nothing },
  "guest.logs": {
    role: "client",
    params: logsParams,
    result: z.object({ lines: z.array(z.string().max(MAX_LOG_LINE_CHARACTERS)).max(MAX_LOG_LINES) }),
  },
  "guest.console.open": { role: "client", params: byName, result: consoleId },
  "guest.console.input": {
    role: "client",
    params: z.strictObject({ console: u32, data: consoleBytes }),
    result: nothing,
  },
  "guest.console.close": { role: "client", params: consoleId, result: nothing },
  "guest.warm": {
    role: "client",
    params: warmParams,
    result: z.object({
      warm: z.array(z.object({ host: z.string().max(255), count })).max(MAX_CHILDREN),
    }),
  },
} as const;
