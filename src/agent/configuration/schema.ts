import { isIP } from "node:net";
import { hostname } from "node:os";
import { z } from "zod";
import { LOG_LEVELS } from "../../base/index.js";

/** What a guest, host or peer may be called: it becomes part of commands and paths. */
export const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

const name = z
  .string()
  .regex(
    NAME_PATTERN,
    "must be 1 to 63 letters, digits, dots, dashes or underscores, starting with a letter or digit",
  );
const directory = z
  .string()
  .startsWith("/", "must be an absolute path")
  .max(1024, "must be at most 1024 characters");
const whole = (least: number, most: number) =>
  z
    .int(`must be a whole number`)
    .min(least, `must be at least ${least}`)
    .max(most, `must be at most ${most}`);

/** `HOST:PORT`, IPv6 in brackets. */
const address = z.string().transform((text, context) => {
  const parsed = parseAddress(text);
  if (parsed !== undefined) return parsed;
  context.issues.push({
    code: "custom",
    input: text,
    message: "must be HOST:PORT, such as 127.0.0.1:7070 or [::1]:7070",
  });
  return z.NEVER;
});

const peerUrl = z.string().refine(isPeerUrl, "must be wss://HOST:PORT");

/** What the agent shows of itself over TCP, and whose certificates it takes. */
const tls = z.strictObject({
  certificate: directory,
  key: directory,
  authority: directory,
  revoked: directory.optional(),
});

/** The machine's name, cut to what a host may be called. */
function defaultName(): string {
  const short = hostname()
    .replaceAll(/[^A-Za-z0-9._-]/g, "-")
    .slice(0, 63);
  return NAME_PATTERN.test(short) ? short : "host";
}

const limits = z.strictObject({
  /** Guest memory, warm emulators included; without it what the memory directory's file system has, less the reserve. */
  memoryMib: whole(16, 1024 * 1024 * 64).optional(),
  memoryReserveMib: whole(0, 1024 * 1024 * 64).default(256),
  copiesMib: whole(1, 1024 * 64).default(64),
  /** How long a parent's writers wait for room in the copies before the children that take no page are given up. */
  stallMs: whole(100, 3_600_000).default(30_000),
  /** How long a migrated child that lacks pages runs on while its parent's host is out of reach. */
  migrationLeaseSeconds: whole(1, 86_400).default(60),
  /** What is set aside of a child's memory that shares its parent's, for pages that either of them writes. */
  sharedChildPercent: whole(1, 100).default(100),
  maxGuests: whole(1, 10_000).default(256),
  warmEmulators: whole(0, 256).default(4),
  warmIdleSeconds: whole(1, 86_400 * 7).default(600),
});

const isolation = z.strictObject({
  /** `auto` does without what the machine cannot do, `required` does not start then. */
  mode: z.enum(["auto", "required", "off"], "must be auto, required or off").default("auto"),
  /** Each emulator has a user of its own from here on. Above those of systemd and of containers, below the sign bit. */
  firstUid: whole(1, 2 ** 31 - 2).default(1_900_000_000),
  uidCount: whole(1, 2 ** 31 - 2).default(100_000_000),
  cgroup: directory.default("/ramet"),
  /** What an emulator may have besides guest memory: translated code alone is up to 1 GiB. */
  overheadMib: whole(64, 1024 * 64).default(1536),
  tasks: whole(16, 100_000).default(256),
  cpuWeight: whole(1, 10_000).default(100),
  /** Processors' worth of time besides one for each of the guest's. */
  spareCpus: whole(0, 1024).default(1),
});

const images = z.strictObject({
  /** Where base disks lie, searched in this order; what is imported goes to the first. Hosts may share some. */
  directories: z.array(directory).min(1, "must name a directory").max(16, "must name at most 16").optional(),
  /** Directories of images that are copied from when a guest wants one, and not used in place. */
  libraries: z.array(directory).max(16, "must name at most 16").default([]),
  /** Hosts that are asked, in this order, for images this one lacks: configured peers, or HOST:PORT. */
  sources: z.array(z.string().min(1).max(255)).max(16, "must name at most 16").default([]),
});

/** An emulator besides those on PATH, for guests to be brought to and from (`ramet exchange`). */
const emulator = z.strictObject({
  path: directory,
  architecture: z.enum(["x86_64", "aarch64"], "must be x86_64 or aarch64").default("x86_64"),
  /** Where one that is not installed finds its firmware. */
  dataDirectories: z.array(directory).max(8, "must name at most 8").default([]),
});

/** The configuration file. Unknown fields are refused, so that a misspelt one is not silently ignored. */
export const configurationSchema = z.strictObject({
  name: name.default(defaultName),
  stateDirectory: directory.default("/var/lib/ramet"),
  memoryDirectory: directory.default("/dev/shm/ramet"),
  /** With `any` guests' memory may lie on persistent memory, or on a disk: it outlives the host's kernel, and is not tracked. */
  memoryFileSystem: z.enum(["tmpfs", "any"], "must be tmpfs or any").default("tmpfs"),
  listen: address.default({ host: "127.0.0.1", port: 7070 }),
  /** With it, the agent listens on `listen`, and all connections over TCP are encrypted and proved by certificates. */
  tls: tls.optional(),
  /** Connections over TCP are neither: on loopback only, and with `keyFile`. */
  plain: z.boolean().default(false),
  socket: directory.default("/run/ramet/rametd.sock"),
  advertise: peerUrl.optional(),
  keyFile: directory.optional(),
  peers: z.record(name, peerUrl).default({}),
  forwardAddress: z
    .string()
    .refine((text) => isIP(text) !== 0, "must be an IP address")
    .default("127.0.0.1"),
  logLevel: z.enum(LOG_LEVELS, `must be one of ${LOG_LEVELS.join(", ")}`).default("info"),
  drainSeconds: whole(0, 3600).default(30),
  /** What network guests have that tenants run or fork. One with `user` reaches whatever the host reaches. */
  tenantNetwork: z.enum(["none", "user"], "must be none or user").default("none"),
  /** Processor time for transfers the agent plays with itself before its first real one, so that its code is compiled by then; 0 for none. */
  rehearsalMs: whole(0, 60_000).default(2000),
  limits: limits.prefault({}),
  isolation: isolation.prefault({}),
  images: images.prefault({}),
  /** Directories that other hosts have, too: a migration may name one for what its guest writes until it is complete. */
  sharedDirectories: z.array(directory).max(16, "must name at most 16").default([]),
  emulators: z.array(emulator).max(16, "must name at most 16").default([]),
});

/** A validated configuration. */
export type Configuration = z.output<typeof configurationSchema>;

/** Host and port of `HOST:PORT`; undefined when the text is something else. */
export function parseAddress(text: string): { host: string; port: number } | undefined {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^\s:[\]/]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65535) return undefined;
  if (match?.[1] !== undefined && isIP(host) !== 6) return undefined;
  return { host, port };
}

/** The text form of an address, as `parseAddress` takes it. */
export function formatAddress(at: { host: string; port: number }): string {
  return isIP(at.host) === 6 ? `[${at.host}]:${at.port}` : `${at.host}:${at.port}`;
}

const PEER_URL = /^wss?:\/\/(.*?)\/?$/;

function isPeerUrl(text: string): boolean {
  return parseAddress(PEER_URL.exec(text)?.[1] ?? "") !== undefined;
}

/** The host of a peer's URL. */
export function hostOfUrl(url: string): string {
  return parseAddress(PEER_URL.exec(url)?.[1] ?? "")?.host ?? "";
}
