import { z } from "zod";
import {
  guestNameProblem,
  MAX_GUEST_NAME_CHARACTERS,
  MAX_MEMORY_PAGES,
  PAGE_BYTES,
} from "../../base/index.js";
import { MAX_FORWARDS, MAX_MESSAGE_CHARACTERS } from "../limits.js";

/** A field that may be left out. It may not be present and undefined: messages have no undefined. */
export const optional = z.exactOptional;

export const count = z.int().min(0);
export const u32 = z.int().min(0).max(0xffffffff);

/** A duration in microseconds, fractions allowed. */
export const durationUs = z.number().min(0);

/** Milliseconds since 1970. */
export const wallMs = z.number().min(0);

/** A text for people. */
export const message = z.string().max(MAX_MESSAGE_CHARACTERS);

/** The name of a guest, with its tenant (`guestNameProblem`). */
export const guestName = z
  .string()
  .max(MAX_GUEST_NAME_CHARACTERS)
  .superRefine((name, context) => {
    const problem = guestNameProblem(name);
    if (problem !== undefined) context.addIssue({ code: "custom", message: problem });
  });

/** A host as commands name it: `host:port`, `ws://host:port`, or the name of a peer of the agent's configuration. */
export const hostAddress = z
  .string()
  .min(1)
  .max(255)
  .regex(/^[\x21-\x7e]+$/, "must be printable ASCII without spaces");

/** An absolute path on the agent's machine. */
export const filePath = z
  .string()
  .max(4095)
  .regex(/^\/[^\0\n]*$/, "must be an absolute path on the agent's machine");

/** A directory that several hosts have under the same name. */
export const sharedDirectory = filePath.max(1024);

export const ARCHITECTURES = ["x86_64", "aarch64"] as const;
export const architecture = z.enum(ARCHITECTURES);
export type Architecture = z.infer<typeof architecture>;

/** The emulator's name of a machine type, such as `pc-q35-7.2`. */
export const machineName = z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$/, "must be a machine type");

export const cpuCount = z.int().min(1).max(64);

/** What the emulator room allows as a kernel command line. */
export const append = z
  .string()
  .max(2048)
  .regex(/^[^\0\n]*$/, "must be one line");

export const memoryBytes = z
  .int()
  .min(PAGE_BYTES)
  .max(MAX_MEMORY_PAGES * PAGE_BYTES)
  .multipleOf(PAGE_BYTES, "must be whole pages of 4096 bytes");

export const uuid = z
  .string()
  .regex(/^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/, "must be a UUID in lower case");

export const sha256 = z.string().regex(/^[0-9a-f]{64}$/, "must be 64 hexadecimal digits in lower case");

/** A unicast hardware address. */
export const macAddress = z
  .string()
  .regex(/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/, "must be a unicast MAC address in lower case");

/** A Linux network interface's name. */
export const interfaceName = z.string().regex(/^[A-Za-z0-9_.-]{1,15}$/, "must be a network interface's name");

/** A port of the host that leads to a port of the guest. */
export const forward = z.strictObject({
  address: z.ipv4(),
  hostPort: z.int().min(1).max(65535),
  guestPort: z.int().min(1).max(65535),
  protocol: z.enum(["tcp", "udp"]),
});
export type Forward = z.infer<typeof forward>;

const FORWARD_RULE = "must be [ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp], such as 8080:80";

/** A forward as people write it. Without an address only the host itself reaches it. */
export const forwardText = z
  .string()
  .max(64)
  .transform((text, context): Forward => {
    const parts = /^(?:([0-9.]+):)?([0-9]{1,5}):([0-9]{1,5})(?:\/(tcp|udp))?$/.exec(text);
    const parsed = forward.safeParse({
      address: parts?.[1] ?? "127.0.0.1",
      hostPort: Number(parts?.[2]),
      guestPort: Number(parts?.[3]),
      protocol: parts?.[4] ?? "tcp",
    });
    if (parsed.success) return parsed.data;
    context.issues.push({ code: "custom", message: FORWARD_RULE, input: text });
    return z.NEVER;
  });

/** Bytes as MessagePack's `bin`, at most so many. */
export const byteString = (most: number) =>
  z.custom<Uint8Array>(
    (value) => value instanceof Uint8Array && value.length <= most,
    `must be a byte string of at most ${most} bytes`,
  );

/** A guest's network as it is. */
export const guestNetwork = z.discriminatedUnion("mode", [
  z.strictObject({ mode: z.literal("none") }),
  z.strictObject({
    mode: z.literal("user"),
    mac: macAddress,
    forwards: z.array(forward).max(MAX_FORWARDS),
  }),
  z.strictObject({
    mode: z.literal("tap"),
    mac: macAddress,
    bridge: optional(interfaceName),
    tap: optional(interfaceName),
  }),
]);
export type GuestNetwork = z.infer<typeof guestNetwork>;

/** An error as messages carry it. */
export const errorView = z.object({ code: z.string().max(64), message });
export type ErrorView = z.infer<typeof errorView>;

/** The answer of a method that has nothing to say. */
export const nothing = z.object({});
