import assert from "node:assert/strict";
import { test } from "node:test";
import { DiskTrouble, isStoppedByDisk } from "../../../src/agent/disks/disk-trouble.js";
import type { GuestChange } from "../../../src/agent/guests/guest-change.js";
import type { Guest } from "../../../src/agent/guests/guest.js";
import { realClock, silentLog } from "../../../src/base/index.js";
import { ManualClock } from "../../support/lane-clock.js";

const ID = "11111111-2222-4333-8444-555555555555";

/** A guest with two disks, of which hosts share the second. */
function guestIn(own: string, shared: string) {
  const layer = (directory: string) => ({ id: ID, format: "qcow2", path: `${directory}/${ID}/disk.qcow2` });
  const disks = [
    { name: "disk0", chain: [layer(own)] },
    { name: "disk1", chain: [layer(shared), layer(own)] },
  ];
  const guest = {
    name: "web",
    state: "running",
    record: {} as { message?: string },
    config: { disks },
    hasEmulator: true,
    log: silentLog,
    note: (change: GuestChange) => void Object.assign(guest, { state: change.state, record: change }),
  };
  return guest;
}

const failed = (disk: string, nospace: boolean) => ({
  name: "BLOCK_IO_ERROR",
  data: { action: "stop", "node-name": `${disk}-${ID.replaceAll("-", "")}`, nospace, reason: "no luck" },
});

test("what is said of a full file system names the one that is", () => {
  const trouble = new DiskTrouble({ directory: "/disks", clock: realClock, log: silentLog });
  for (const [event, said] of [
    [failed("disk0", true), "disk0: the file system of /disks is full"],
    [failed("disk1", true), "disk1: the file system of /mnt/small is full"],
    [failed("disk9", true), "disk9: the file system of /disks is full"],
    [failed("disk1", false), "disk1: no luck; it is let try again"],
  ] as const) {
    const guest = guestIn("/disks", "/mnt/small");
    trouble.note(guest as unknown as Guest, event as never);
    assert.ok(isStoppedByDisk(guest as unknown as Guest));
    assert.ok(guest.record.message?.startsWith(`stopped by a disk: ${said}`), guest.record.message);
  }
  trouble.close();
});

test("a guest whose disk failed is let try again soon, then ever more seldom, and soon again when all was well for a while", async () => {
  const clock = new ManualClock();
  const trouble = new DiskTrouble({ directory: "/disks", clock, log: silentLog });
  const resumedAtMs: number[] = [];
  const guest = {
    ...guestIn("/disks", "/mnt/small"),
    occupation: undefined,
    live: {
      emulator: {
        status: async () => "paused",
        resume: async () => void resumedAtMs.push(clock.nowUs() / 1000),
      },
    },
    update: async (change: GuestChange) => void Object.assign(guest, { state: change.state, record: change }),
  };
  /** How long after a failure it is let go on. */
  const delayMs = async (): Promise<number> => {
    const failedAtMs = clock.nowUs() / 1000;
    trouble.note(guest as unknown as Guest, failed("disk1", false) as never);
    const before = resumedAtMs.length;
    for (let step = 0; step < 400 && resumedAtMs.length === before; step += 1) {
      clock.advance(125);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return (resumedAtMs.at(-1) ?? Number.NaN) - failedAtMs;
  };
  const delays: number[] = [];
  for (let count = 0; count < 9; count += 1) delays.push(await delayMs());
  assert.deepEqual(delays, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
  clock.advance(61_000);
  assert.equal(await delayMs(), 250);
  trouble.close();
});
