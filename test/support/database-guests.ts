/** Guests that commit rows to databases, and what must be true of them after a fork, a crash or a migration. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { GuestDiskView, GuestView } from "../../src/control/index.js";
import { diskGuest, inGuest, loggedRows, parseRows, type RowTimes } from "./disk-guest.js";
import { eventually, type Host } from "./hosts.js";
import { qemuImg } from "./images.js";

/** The databases of a guest, by SQLite's journal mode. */
export const DATABASES = ["wal", "delete"] as const;
export type Database = (typeof DATABASES)[number];
const pathOf = (database: Database) => `/root/${database}.db`;

/** Where a guest is reached. */
export interface At {
  host: Host;
  name: string;
  port: number;
}

type Rows = Record<Database, RowTimes>;

async function ofEach<T>(what: (database: Database) => T | Promise<T>): Promise<Record<Database, T>> {
  const [wal, rollback] = [await what("wal"), await what("delete")];
  return { wal, delete: rollback };
}

export const viewOf = async ({ host, name }: At): Promise<GuestView> =>
  (await host.call("guest.show", { name })).guest;

/** Starts the writers, one a database, which commit rows until they are ended. */
export async function startWriters({ host, port }: At, pauseUs = 0): Promise<void> {
  const line = (database: Database) =>
    `setsid rows write ${pathOf(database)} ${database} ${database} ${pauseUs} >/dev/console 2>&1 </dev/null &`;
  await inGuest(host, port, DATABASES.map(line).join("\n"));
}

/** Ends the writers as a crash would. */
export async function stopWriters({ host, port }: At): Promise<void> {
  await inGuest(host, port, "busybox killall -9 rows; sleep 0.2");
}

/** What the guest's console has told of its rows; nothing is waited for. */
export async function told(at: At): Promise<Rows> {
  const guest = await viewOf(at);
  return ofEach((database) => loggedRows(at.host, guest, database));
}

/** Waits until the guest has told of so many rows more in each database. */
export async function tellsMore(at: At, count: number): Promise<void> {
  const before = await told(at);
  const isMore = async () => {
    const now = await told(at);
    return DATABASES.every((database) => now[database].size >= before[database].size + count);
  };
  await eventually(`${at.name} commits ${count} rows more`, isMore, 120_000);
}

/** What the databases of a running guest hold, checked by it. */
export function rowsIn({ host, port }: At): Promise<Rows> {
  return ofEach(async (database) => parseRows(await inGuest(host, port, `rows check ${pathOf(database)}`)));
}

/** Every row that was told of is there, as it was told. */
export function assertHolds(who: string, rows: Rows, logged: Rows): void {
  for (const database of DATABASES) {
    for (const [number, at] of logged[database])
      assert.equal(rows[database].get(number), at, `${who}, ${database}: row ${number}, which was told of`);
  }
}

/** Nothing was committed after what was told of but one row, which may have been in flight. */
export function assertNoMore(who: string, rows: Rows, logged: Rows): void {
  for (const database of DATABASES) {
    const last = Math.max(0, ...logged[database].keys());
    const more = rows[database].size - last;
    assert.ok(more <= 1, `${who}, ${database}: ${rows[database].size} rows, told of ${last}`);
  }
}

/**
 * Parent and child have the same rows up to the fork's instant, and none of each other's after it. At the instant at most one row was committed that had not been told of: what the
 * child told of first is that one, or the next.
 */
export function assertParted(options: { parent: Rows; child: Rows; childTold: Rows; before: Rows }): void {
  const { parent, child, childTold, before } = options;
  for (const database of DATABASES) {
    let common = 0;
    while (
      parent[database].get(common + 1) === child[database].get(common + 1) &&
      child[database].has(common + 1)
    )
      common += 1;
    const shared = [...child[database]].filter(([number, at]) => parent[database].get(number) === at);
    assert.equal(shared.length, common, `${database}: no rows of the other's after the instant`);
    const first = Math.min(...childTold[database].keys());
    const told = Math.max(0, ...before[database].keys());
    const where = `${database}: ${common} rows at the instant, ${told} told of before it, the child told of ${first} first`;
    assert.ok(common >= told, where);
    assert.ok(common === first - 1 || common === first, where);
  }
}

/** Switches a guest off as an operating system does: nothing is written any more, all is on the disk. */
export async function switchOff(at: At): Promise<void> {
  await stopWriters(at);
  // What it says to the request is lost when the machine goes off at once.
  await inGuest(
    at.host,
    at.port,
    "sync; mount -o remount,ro / || exit 1; (sleep 0.3; busybox poweroff -f) >/dev/null 2>&1 &",
  );
  await eventually(`${at.name} is off`, async () => (await viewOf(at)).state === "stopped", 60_000);
}

/** How qemu-img is told of a chain: each layer and what it stands on. */
function nodeOf(host: Host, [top, ...below]: GuestDiskView["chain"]): object | null {
  if (top === undefined) return null;
  if (top.kind === "image")
    return {
      driver: "raw",
      file: { driver: "file", filename: join(host.stateDirectory, "images", top.id, "disk.raw") },
    };
  const filename = join(host.stateDirectory, "disks", top.id, "disk.qcow2");
  return { driver: "qcow2", file: { driver: "file", filename }, backing: nodeOf(host, below) };
}

/**
 * Looks at the disk of a guest that does not run, in a copy: its file system is clean, after a crash when its journal was replayed, and its databases are whole.
 * @returns what they hold.
 */
export async function rowsOnDisk(at: At, end: "clean" | "crashed"): Promise<Rows> {
  const [disk] = (await viewOf(at)).disks ?? [];
  assert.ok(disk !== undefined);
  const directory = mkdtempSync(join(tmpdir(), "rd-"));
  try {
    const copy = join(directory, "disk.raw");
    const source = `json:${JSON.stringify(nodeOf(at.host, disk.chain))}`;
    qemuImg("convert", "-O", "raw", source, copy);
    if (end === "crashed") {
      // What a mount would do, too: the journal is replayed, and files that were deleted while open go. Exit code 1: something of that was done.
      const { status, stdout } = e2fsck("-p", copy);
      assert.ok(status === 0 || status === 1, `the journal of ${at.name} is replayed:\n${stdout}`);
    }
    const { status, stdout } = e2fsck("-fn", copy);
    assert.equal(status, 0, `the file system of ${at.name} is clean:\n${stdout}`);
    return await ofEach((database) => {
      const found = join(directory, database);
      const suffixes = ["", "-wal", "-journal"];
      const dumps = suffixes.map((suffix) => `dump ${pathOf(database)}${suffix} ${found}.db${suffix}`);
      for (const dump of dumps)
        execFileSync("debugfs", ["-R", dump, copy], { env: withSbin(), stdio: "ignore" });
      return parseRows(execFileSync(diskGuest().rows, ["check", `${found}.db`], { encoding: "utf8" }));
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const withSbin = () => ({ ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` });

function e2fsck(...args: string[]): { status: number | null; stdout: string } {
  return spawnSync("e2fsck", args, { encoding: "utf8", env: withSbin() });
}
