import { accessSync, constants } from "node:fs";
import { z } from "zod";
import { diskSchema } from "./disks.js";
import { GuestError } from "./errors.js";
import {
  MAX_APPEND_BYTES,
  MAX_CPUS,
  MAX_DISKS,
  MAX_MEMORY_BYTES,
  MEMORY_UNIT_BYTES,
  MIN_MEMORY_BYTES,
} from "./limits.js";

const NAME = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?(@[a-z0-9][a-z0-9._-]{0,62})?$/;
const UNICAST_MAC = /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/;
const INTERFACE = /^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/;
const HOST_ADDRESS = /^(\d{1,3}\.){3}\d{1,3}$/;
const CPU_MODEL = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/** Machine types that stay the same in every version of the emulator, by architecture. */
const VERSIONED_MACHINE = { x86_64: /^pc-q35-\d+\.\d+$/, aarch64: /^virt-\d+\.\d+$/ } as const;

/** Options other hypervisors have, and why a guest of Ramet has none. */
const REFUSED_OPTIONS: Record<string, string> = {
  vga: "the contents of a graphics card's memory would not reach the child; use the serial console",
  display: "the contents of a graphics card's memory would not reach the child; use the serial console",
  pflash:
    "firmware variables in a file of their own would be shared by parent and child; boot with kernel and initrd",
  firmware: "firmware of its own would have to be the same file on every host; boot with kernel and initrd",
  drive:
    "the emulator's own words for a disk could name a file that parent and child both write; use `disks`",
  cdrom: "a medium that can be changed would be another one for parent and child; use `disks`",
  usb: "a device of the host cannot be in two guests",
  hostDevices: "a device of the host cannot be in two guests",
  balloon: "memory the guest gives back while it is forked could not be told from memory not yet received",
  shares: "a directory of the host shared with parent and child would be seen to change under both",
};

const macSchema = z
  .string()
  .regex(UNICAST_MAC, "must be a unicast MAC address in lower case, such as 52:54:00:12:34:56");
const portSchema = z.int().min(1).max(65535);

const forwardSchema = z.strictObject({
  host: z.string().regex(HOST_ADDRESS, "must be an IPv4 address of this host").default("127.0.0.1"),
  hostPort: portSchema,
  guestPort: portSchema,
  protocol: z.enum(["tcp", "udp"]).default("tcp"),
});

const networkSchema = z.discriminatedUnion("mode", [
  z.strictObject({ mode: z.literal("none") }),
  // A network device whose cable leads nowhere: what a child gets that must not meet its parent's peers.
  z.strictObject({ mode: z.literal("isolated"), mac: macSchema }),
  z.strictObject({
    mode: z.literal("user"),
    mac: macSchema,
    forwards: z.array(forwardSchema).max(64).default([]),
  }),
  z.strictObject({
    mode: z.literal("tap"),
    mac: macSchema,
    tap: z
      .string()
      .regex(INTERFACE, "must be an interface name of at most 15 letters, digits, dots and dashes"),
    bridge: z.string().regex(INTERFACE, "must be the name of a bridge").optional(),
  }),
]);

const pathSchema = z
  .string()
  .startsWith("/", "must be an absolute path")
  .refine((path) => !path.includes("\0"), "must not contain a zero byte");

const appendSchema = z
  .string()
  .refine((text) => !/[\0\n\r]/.test(text), "must be one line without zero bytes")
  .refine(
    (text) => Buffer.byteLength(text) <= MAX_APPEND_BYTES,
    `must have at most ${MAX_APPEND_BYTES} bytes`,
  );

const guestConfigSchema = z
  .strictObject({
    id: z.uuid(),
    name: z
      .string()
      .regex(
        NAME,
        "must be 1 to 63 letters, digits, dots, dashes and underscores, and begin and end with a letter or digit; after it may come @ and a tenant",
      ),
    architecture: z.enum(["x86_64", "aarch64"]),
    machine: z.string(),
    accelerator: z.enum(["tcg", "kvm"]).default("tcg"),
    cpuModel: z
      .string()
      .regex(CPU_MODEL, "must be the name of a processor model, without features")
      .refine(
        (model) => !["host", "max", "best"].includes(model),
        "stands for whatever a host offers, which another host may lack; name a model",
      )
      .optional(),
    memoryBytes: z
      .int()
      .min(MIN_MEMORY_BYTES, `must be at least ${MIN_MEMORY_BYTES} (64 MiB)`)
      .multipleOf(MEMORY_UNIT_BYTES, `must be a multiple of ${MEMORY_UNIT_BYTES} (2 MiB)`),
    cpus: z.int().min(1, "must be at least 1"),
    kernel: pathSchema.optional(),
    initrd: pathSchema.optional(),
    append: appendSchema.default(""),
    network: networkSchema,
    disks: z.array(diskSchema).max(MAX_DISKS, `must be at most ${MAX_DISKS}`).default([]),
    vmgenid: z.uuid().optional(),
  })
  .superRefine((config, context) => {
    const refuse = (path: string, message: string): void => {
      context.addIssue({ code: "custom", path: [path], message });
    };
    const { architecture } = config;
    if (!VERSIONED_MACHINE[architecture].test(config.machine)) {
      const example = architecture === "x86_64" ? "pc-q35-7.2" : "virt-7.2";
      refuse(
        "machine",
        `must be a versioned machine type such as ${example}: any other one differs between emulator versions, so that another host could not load the guest's state`,
      );
    }
    if (config.cpus > MAX_CPUS[architecture])
      refuse("cpus", `must be at most ${MAX_CPUS[architecture]} for ${architecture}`);
    if (config.memoryBytes > MAX_MEMORY_BYTES[architecture]) {
      refuse("memoryBytes", `must be at most ${MAX_MEMORY_BYTES[architecture]} for ${architecture}`);
    }
    if (config.kernel === undefined) {
      if (config.initrd !== undefined) refuse("initrd", "needs a kernel");
      if (config.append !== "") refuse("append", "needs a kernel");
      if (architecture !== "x86_64")
        refuse("kernel", `is needed on ${architecture}: its emulator brings no firmware`);
    }
    config.disks.forEach(({ name }, index) => {
      if (name !== `disk${index}`) refuse(`disks.${index}.name`, `must be disk${index}, by its place`);
    });
    const written = config.disks.map(({ chain }) => chain[0]?.path);
    if (new Set(written).size < written.length) refuse("disks", "must each have a newest layer of their own");
    if (architecture === "x86_64" && config.vmgenid === undefined) {
      refuse("vmgenid", "is needed on x86_64: by it a clone finds out that it is one");
    }
    if (architecture !== "x86_64" && config.vmgenid !== undefined) {
      refuse("vmgenid", `does not exist on ${architecture}`);
    }
  });

/** A guest's place in the network, as it is written down apart from its configuration. */
export { networkSchema };

/** Everything that makes up a guest but its memory and state; the same object on parent and child but for name, id, network and vmgenid. */
export type GuestConfig = z.infer<typeof guestConfigSchema>;
export type Architecture = GuestConfig["architecture"];
export type Network = GuestConfig["network"];
export type Forward = z.infer<typeof forwardSchema>;

/** One line of what zod found: the input and its rule. */
function describeIssue(issue: z.core.$ZodIssue): string {
  const path = issue.path.join(".");
  if (issue.code === "unrecognized_keys") {
    const key = issue.keys[0] as string;
    const reason = REFUSED_OPTIONS[key];
    return reason === undefined
      ? `there is no option ${[...issue.path, key].join(".")}`
      : `${key} is not possible: ${reason}`;
  }
  return path === "" ? issue.message : `${path}: ${issue.message}`;
}

/**
 * Checks a guest's configuration, as read from a file or given by a user. Looks at nothing on this host.
 * @throws GuestError `bad-config` naming the option and its rule, also for what could not be forked safely.
 */
export function parseGuestConfig(value: unknown): GuestConfig {
  const parsed = guestConfigSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const reasons = parsed.error.issues.map(describeIssue).join("; ");
  throw new GuestError("bad-config", `the guest's configuration is refused: ${reasons}`);
}

/**
 * Checks one port forward.
 * @throws GuestError `bad-config`.
 */
export function parseForward(value: unknown): Forward {
  const parsed = forwardSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new GuestError(
    "bad-config",
    `the port forward is refused: ${parsed.error.issues.map(describeIssue).join("; ")}`,
  );
}

/**
 * Checks what a configuration needs of this host: files it can read, and the accelerator.
 * @throws GuestError `missing-file` or `bad-config`.
 */
export function checkHost(config: GuestConfig): void {
  for (const [what, path] of [
    ["kernel", config.kernel],
    ["initrd", config.initrd],
    ...config.disks.flatMap(({ name, chain }) =>
      chain.map(({ path, socket }) => [name, socket ?? path] as const),
    ),
  ] as const) {
    if (path === undefined) continue;
    try {
      accessSync(path, constants.R_OK);
    } catch (cause) {
      throw new GuestError("missing-file", `the guest's ${what} ${path} cannot be read`, { cause });
    }
  }
  if (config.accelerator !== "kvm") return;
  const own = { x64: "x86_64", arm64: "aarch64" }[process.arch as string];
  if (own !== config.architecture) {
    throw new GuestError(
      "bad-config",
      `accelerator: kvm runs guests of the host's own architecture only, not ${config.architecture}`,
    );
  }
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch (cause) {
    throw new GuestError(
      "bad-config",
      "accelerator: kvm needs /dev/kvm, which this host does not offer; use tcg",
      { cause },
    );
  }
}
