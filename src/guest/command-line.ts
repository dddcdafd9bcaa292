import { assert } from "../base/index.js";
import type { GuestConfig, Network } from "./config.js";
import { diskArguments } from "./disks.js";
import type { Layout } from "./layout.js";

/** Name of guest memory's backend and so of its RAM block, the same in every emulator. */
export const MAIN_MEMORY = "ram";

/** Name of the network backend, for forwards added later. */
export const NETWORK_BACKEND = "net0";

/** Processor models every version of the emulator has had for years; their features are pinned by the machine type. */
const DEFAULT_CPU_MODEL = { x86_64: "qemu64", aarch64: "cortex-a57" } as const;

/** The number of the set of descriptors (qemu(1), -add-fd) that holds the console's log. */
const CONSOLE_LOG_SET = 1;

/** Descriptors in the emulator's process, by number. */
export interface Inherited {
  /** The console's log, for appending. */
  consoleLog: number;
  /** The tap device, for a network of that mode. */
  tap?: number | undefined;
}

/** In QEMU's option lists a comma within a value is written twice (qemu(1)). */
function quote(value: string): string {
  return value.replaceAll(",", ",,");
}

/** A port forward in the words of `hostfwd` and `hostfwd_add`. */
export function forwardRule(forward: {
  host: string;
  hostPort: number;
  guestPort: number;
  protocol: string;
}): string {
  return `${forward.protocol}:${forward.host}:${forward.hostPort}-:${forward.guestPort}`;
}

/**
 * Virtio devices are offered in their first form only. In the second one QEMU saves 1024 queues of each, used or not: 45 KB and 0.3 ms
 * of the parent's pause for every device (measured: 1.1 ms became 0.55 ms). Linux, BSD and Windows drivers know both forms.
 */
const VIRTIO_FORM = "disable-modern=on";

/**
 * Every mode but `none` gives the same device, so that parent and child may differ in where the cable leads. A tap must then do
 * without the offloads that user-mode networking lacks: they are part of what the device promised to the guest.
 */
function networkArguments(network: Network, tap: number | undefined): string[] {
  if (network.mode === "none") return [];
  // No option ROM: it would be one more memory block to carry, for booting from the network.
  const device = `virtio-net-pci,netdev=${NETWORK_BACKEND},mac=${network.mac},romfile=,${VIRTIO_FORM}`;
  switch (network.mode) {
    case "isolated":
      return ["-netdev", `hubport,id=${NETWORK_BACKEND},hubid=0`, "-device", device];
    case "user": {
      const forwards = network.forwards.map((forward) => `,hostfwd=${forwardRule(forward)}`).join("");
      return ["-netdev", `user,id=${NETWORK_BACKEND}${forwards}`, "-device", device];
    }
    case "tap":
      // An open device, so that the emulator need not be one who may make it.
      assert(tap !== undefined, "an emulator on a tap inherits it");
      return ["-netdev", `tap,id=${NETWORK_BACKEND},fd=${tap},vhost=off`, "-device", device];
  }
}

function machineArgument(config: GuestConfig): string {
  // Not suppressed, the emulator that loads a state expects a description at its end, which a composed one lacks.
  const common = `${config.machine},memory-backend=${MAIN_MEMORY},suppress-vmdesc=on,dump-guest-core=off`;
  // Controllers and timers nobody uses would only make the state larger; the vmport is a way from guest to host.
  return config.architecture === "x86_64" ? `${common},sata=off,smbus=off,vmport=off,hpet=off` : common;
}

/**
 * The emulator's arguments for a guest. The same configuration always gives the same devices at the same places, which is
 * what makes a device state loadable elsewhere. The emulator never runs the guest by itself (`-S`).
 * @param options.inherited descriptors it has from its start.
 * @param options.incoming whether it is to wait for a device state instead of booting.
 * @param options.privateMemory whether it maps its memory privately, as a child does that shares its parent's.
 * @param options.dataDirectories where an emulator that is not installed finds its firmware.
 */
export function commandLine(options: {
  config: GuestConfig;
  layout: Layout;
  incoming: boolean;
  inherited: Inherited;
  privateMemory?: boolean;
  dataDirectories?: readonly string[];
}): string[] {
  const { config, layout } = options;
  const file = `memory-backend-file,id=${MAIN_MEMORY},size=${config.memoryBytes},mem-path=${quote(layout.ramPath)}`;
  const console = `socket,id=console,path=${quote(layout.consoleSocket)},server=on,wait=off`;
  const args = ["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-S"];
  for (const directory of options.dataDirectories ?? []) args.push("-L", directory);
  args.push("-name", `guest=${config.name},debug-threads=on`, "-uuid", config.id, "-pidfile", layout.pidFile);
  // The emulator may not start programs nor gain privileges.
  args.push("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
  args.push("-machine", machineArgument(config));
  if (config.architecture === "x86_64") {
    // Nothing is plugged in while the guest runs, and the state of 256 buses for it takes 0.1 ms to save.
    args.push("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off");
  }
  args.push("-accel", config.accelerator === "kvm" ? "kvm" : "tcg,thread=multi");
  args.push("-cpu", config.cpuModel ?? DEFAULT_CPU_MODEL[config.architecture], "-smp", String(config.cpus));
  // Shared, so that agent and emulator see the same pages; not preallocated, because a page that is there cannot be missing.
  const share = options.privateMemory === true ? "share=off" : "share=on";
  args.push(
    "-m",
    `size=${config.memoryBytes}b`,
    "-object",
    `${file},${share},prealloc=off,dump=off,merge=off`,
  );
  if (config.kernel !== undefined) args.push("-kernel", config.kernel);
  if (config.initrd !== undefined) args.push("-initrd", config.initrd);
  if (config.append !== "") args.push("-append", config.append);
  // Opened by the agent, because what the emulator may put in a file's place the agent must not read or cut back.
  args.push("-add-fd", `fd=${options.inherited.consoleLog},set=${CONSOLE_LOG_SET}`);
  args.push(
    "-chardev",
    `${console},logfile=/dev/fdset/${CONSOLE_LOG_SET},logappend=on`,
    "-serial",
    "chardev:console",
  );
  args.push(...networkArguments(config.network, options.inherited.tap));
  args.push("-object", "rng-builtin,id=rng0", "-device", `virtio-rng-pci,rng=rng0,${VIRTIO_FORM}`);
  args.push(...diskArguments(config.disks, VIRTIO_FORM));
  if (config.vmgenid !== undefined) args.push("-device", `vmgenid,guid=${config.vmgenid}`);
  args.push("-qmp", `unix:${quote(layout.qmpSocket)},server=on,wait=off`);
  if (options.incoming) args.push("-incoming", "defer");
  return args;
}
