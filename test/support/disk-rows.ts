import assert from "node:assert/strict";
import type { DiskView, GuestDiskView } from "../../src/control/index.js";
import { eventually, type Host } from "./hosts.js";
import { ask } from "./sample-guest.js";

/** What the sample guest says of the rows it commits to its disk. */
export interface Rows {
  committed: number;
  wrong: number;
  after: number;
  tags: number[];
}

/** Asks a sample guest something of its disk. */
export const rows = (host: Host, port: number, path: string): Promise<Rows> =>
  ask<Rows>(host, port, `/disk/${path}`);

/** Waits until the guest has committed so many rows more. */
export async function goOn(host: Host, port: number, count: number): Promise<void> {
  const { committed } = await rows(host, port, "status");
  const isThere = async () => (await rows(host, port, "status")).committed >= committed + count;
  await eventually(`${count} rows more`, isThere, 60_000);
}

/** Asserts that the guest finds all rows it ever committed, as it wrote them. */
export async function assertSound(host: Host, port: number, least = 0): Promise<Rows> {
  const said = await rows(host, port, "verify");
  assert.deepEqual([said.wrong, said.after], [0, 0], JSON.stringify(said));
  assert.ok(said.committed >= least, `${said.committed} of ${least} rows are there`);
  return said;
}

/** The layers of a guest's only disk. */
export async function chainOf(host: Host, name: string): Promise<GuestDiskView["chain"]> {
  const [disk] = (await host.call("guest.show", { name })).guest.disks ?? [];
  assert.ok(disk !== undefined, `guest ${name} has a disk`);
  return disk.chain;
}

export async function disksOf(host: Host): Promise<DiskView[]> {
  return (await host.call("disk.list", {})).disks;
}

/** Waits until no disk is on its way to the host. */
export async function whenArrived(host: Host): Promise<void> {
  const isHere = async () => (await disksOf(host)).every(({ arriving }) => arriving === undefined);
  await eventually("all disks are here", isHere, 60_000);
}

/** Has a guest write so much that its layer takes a while to come. */
export async function writeMuch(host: Host, name: string, mark: string): Promise<void> {
  const { console: at } = await host.call("guest.console.open", { name });
  const command = `dd if=/dev/urandom of=/dev/vda bs=1M seek=128 count=64 conv=fsync 2>/dev/null; echo ${mark} $((6*7))\n`;
  await host.call("guest.console.input", { console: at, data: Buffer.from(command) });
  const logs = async () => (await host.call("guest.logs", { name, source: "console", lines: 50 })).lines;
  const isDone = async () => (await logs()).join("\n").includes(`${mark} 42`);
  await eventually(`${name} has written`, isDone, 60_000);
  await host.call("guest.console.close", { console: at });
}
