/** The disk guest: a Debian root on ext4 that commits rows to databases, see scripts/disk-guest-parts. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { GuestView, ParamsInput } from "../../src/control/index.js";
import type { Host } from "./hosts.js";
import { BRIEFLY, whenReady } from "./sample-guest.js";

const ROOT = new URL("../..", import.meta.url).pathname;
const BUILT = join(ROOT, "build/disk-guest");
const RUN_DEADLINE_MS = 300_000;

/** What a root is imported as. */
export const ROOT_IMAGE = "root";

/** The files of the disk guest, which is built when it is not there. */
export function diskGuest(): { kernel: string; initrd: string; root: string; rows: string } {
  if (!existsSync(join(BUILT, ".stamp")))
    execFileSync(join(ROOT, "scripts/disk-guest"), [], { stdio: "inherit" });
  const [kernel, initrd, root, rows] = ["vmlinuz", "initramfs", "root.raw", "rows"].map((name) =>
    join(BUILT, name),
  ) as [string, string, string, string];
  return { kernel, initrd, root, rows };
}

/** Imports the root to a host; its digest. */
export async function importRoot(host: Host): Promise<string> {
  const { image } = await host.call("image.import", { path: diskGuest().root, identifier: ROOT_IMAGE });
  return image.digest;
}

/** Runs a disk guest over the root and waits until it serves; `hostPort` of the host leads to it. */
export async function runDiskGuest(
  host: Host,
  params: Omit<ParamsInput<"guest.run">, "kernel" | "initrd" | "append"> & { hostPort: number },
): Promise<GuestView> {
  const { hostPort, ...rest } = params;
  const { kernel, initrd } = diskGuest();
  const { guest } = await host.call("guest.run", {
    kernel,
    initrd,
    append: `console=ttyS0 no_timer_check ${BRIEFLY}`,
    network: { mode: "user", forwards: [`${hostPort}:80`] },
    disks: [{ image: ROOT_IMAGE }],
    ...rest,
  });
  await whenReady(host, guest.name);
  return guest;
}

/** Runs a script in a guest, as root. @returns what it said. @throws AssertionError when it did not exit with 0. */
export async function inGuest(host: Host, hostPort: number, script: string): Promise<string> {
  const answer = await fetch(`http://${host.address}:${hostPort}/cgi-bin/run`, {
    method: "POST",
    body: script,
    headers: { connection: "close" },
    signal: AbortSignal.timeout(RUN_DEADLINE_MS),
  });
  const text = await answer.text();
  const said = /^(?<output>.*?)exit 0\n$/s.exec(text)?.groups?.["output"];
  assert.ok(said !== undefined, `in the guest at port ${hostPort}: ${script}\n${text}`);
  return said;
}

/** Rows of one database: when each was made, in the guest's nanoseconds, by its number. */
export type RowTimes = ReadonlyMap<number, string>;

/** Reads what `rows check` says. @throws AssertionError when anything is wrong. */
export function parseRows(said: string): RowTimes {
  const lines = said.trim().split("\n");
  const wrong = lines.filter((line) => line.startsWith("wrong"));
  assert.deepEqual(wrong, []);
  const rows = new Map(
    lines.slice(0, -1).map((line) => [Number(line.split(" ")[0]), line.split(" ")[1] ?? ""] as const),
  );
  assert.equal(lines.at(-1), `rows ${rows.size}`);
  return rows;
}

/** What a guest's console has said of a writer's rows, each after its COMMIT. A line that began before a fork is not whole in the child's, and not counted. */
export function loggedRows(host: Host, guest: Pick<GuestView, "id">, name: string): RowTimes {
  const path = join(host.stateDirectory, "guests", guest.id, "console.log");
  const said = new Map<number, string>();
  for (const line of readFileSync(path, "utf8").split("\n").slice(0, -1)) {
    const [, of, number, at] = /^ROW (\S+) (\d+) (\d+)\r?$/.exec(line) ?? [];
    if (of === name && at !== undefined) said.set(Number(number), at);
  }
  return said;
}
