import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Architecture, GuestView, ParamsInput } from "../../src/control/index.js";
import { eventually, type Host } from "./hosts.js";
import { whyMissing } from "./missing.js";

const ROOT = new URL("../..", import.meta.url).pathname;
/** Without what a kernel says of itself and its tests of ciphers, which are a quarter of what a boot takes. */
export const BRIEFLY = "quiet cryptomgr.notests";
const CONSOLE = { x86_64: `console=ttyS0 no_timer_check ${BRIEFLY}`, aarch64: "console=ttyAMA0" } as const;
const BOOT_DEADLINE_MS = 120_000;

/** Kernel, initrd and console of the sample guest, which is built when it is not there. */
export function sampleGuest(architecture: Architecture = "x86_64"): {
  kernel: string;
  initrd: string;
  append: string;
} {
  const directory = join(ROOT, "build/sample-guest", architecture);
  const files = { kernel: join(directory, "vmlinuz"), initrd: join(directory, "initramfs") };
  if (!existsSync(files.kernel) || !existsSync(files.initrd)) {
    execFileSync(join(ROOT, "scripts/sample-guest"), [architecture], { stdio: "inherit" });
  }
  return { ...files, append: CONSOLE[architecture] };
}

/** Why there is no sample guest for an architecture on this machine, for `skip`; false when there is one. */
export function missingSampleGuest(architecture: Architecture): string | false {
  return whyMissing(join(ROOT, "scripts/sample-guest"), [architecture]);
}

/** Runs a sample guest and waits until it serves HTTP; with `hostPort` that port of the host leads to it. */
export async function runSample(
  host: Host,
  params: Omit<ParamsInput<"guest.run">, "kernel" | "initrd" | "append"> & {
    hostPort?: number;
    append?: string;
  },
): Promise<GuestView> {
  const { hostPort, append, ...rest } = params;
  const files = sampleGuest(rest.architecture);
  const network =
    hostPort === undefined ? {} : { network: { mode: "user" as const, forwards: [`${hostPort}:80`] } };
  const { guest } = await host.call("guest.run", {
    ...files,
    append: `${files.append} ${append ?? ""}`.trim(),
    ...network,
    ...rest,
  });
  await whenReady(host, guest.name);
  return guest;
}

/** Waits until the guest's console says that it serves HTTP. */
export async function whenReady(host: Host, name: string): Promise<void> {
  await eventually(
    `guest ${name} is ready`,
    async () =>
      (await host.call("guest.logs", { name, source: "console" })).lines.some((line) =>
        line.includes("ramet-guest ready"),
      ),
    BOOT_DEADLINE_MS,
  );
}

/** What the sample guest answers to `/counter`. */
export interface Counter {
  counter: number;
  ticks: number;
  uptime_ms: number;
  boot_id: string;
  hostname: string;
}

/** Asks a guest something over HTTP. A connection of its own each time, closed afterwards. */
export async function ask<T = Counter>(host: Host, hostPort: number, path = "/counter"): Promise<T> {
  const answer = await fetch(`http://${host.address}:${hostPort}${path}`, {
    headers: { connection: "close" },
    signal: AbortSignal.timeout(60_000),
  });
  return (await answer.json()) as T;
}

/** Waits until no transfer of the host is under way. */
export async function whenTransfersEnd(host: Host, deadlineMs = 60_000): Promise<void> {
  await eventually(
    "the transfers are over",
    async () => (await host.call("transfer.list", { active: true })).transfers.length === 0,
    deadlineMs,
  );
}
