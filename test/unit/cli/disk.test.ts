import assert from "node:assert/strict";
import { test } from "node:test";
import type { GuestDiskView, RequestedDisk } from "../../../src/control/index.js";
import { GUEST } from "../control/support.js";
import { FakeSetting } from "./support.js";

const UUID = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87";
const MIB = 1024 * 1024;

const disk: GuestDiskView = {
  name: "disk0",
  sizeBytes: 512 * MIB,
  cache: "none",
  iops: 200,
  chain: [
    { kind: "disk", id: UUID },
    { kind: "image", id: "ab".repeat(32) },
  ],
};

async function runWith(...disks: string[]): Promise<{ code: number; asked: RequestedDisk[]; said: string }> {
  let asked: RequestedDisk[] = [];
  const setting = new FakeSetting({
    "guest.run": (params) => {
      asked = params.disks;
      return Promise.resolve({ guest: { ...GUEST, disks: [disk] } });
    },
  });
  const options = disks.flatMap((text) => ["--disk", text]);
  const code = await setting.run("run", "web", "-k", "/vmlinuz", ...options);
  return { code, asked, said: setting.stdout.text + setting.stderr.text };
}

test("disks are made of parts", async () => {
  const { code, asked, said } = await runWith(
    "size=512M,cache=none,iops=200,bps=10M",
    `parent=${UUID}`,
    "image:debian-12,differencing=off",
  );
  assert.equal(code, 0, said);
  assert.deepEqual(asked, [
    { sizeBytes: 512 * MIB, cache: "none", iops: 200, bps: 10 * MIB, differencing: true },
    { parent: UUID, cache: "writeback", differencing: true },
    { image: "debian-12", cache: "writeback", differencing: false },
  ]);
  assert.match(
    said,
    /disk0 {2}512 MiB, 200 requests\/s, past the page cache, 324e6eaf.* over image abababababab/,
  );
});

for (const [text, problem] of [
  ["", /"" is no part of a disk; those are image, from, size, parent, differencing, cache, iops, bps/],
  ["20G", /"20G" is no part/],
  ["size:20G", /"size:20G" is no part/],
  ["image=debian-12", /"image=debian-12" is no part/],
  ["size=20G,size=1G", /size is given twice/],
  ["size=0", /number of bytes/],
  ["size=1G,cache=unsafe", /cache must be writeback or none/],
  ["size=1G,iops=1", /whole number from 10/],
  ["size=1000", /sizeBytes must be whole sectors/],
  ["image:base,differencing=no", /differencing must be on or off/],
  ["image:base,from=b,differencing=off", /is copied whole from an image that is all here/],
  ["iops=100", /needs an image, a parent or a size/],
] as const) {
  test(`a disk "${text}" is refused`, async () => {
    const { code, asked, said } = await runWith(text);
    assert.equal(code, 2, said);
    assert.match(said, problem);
    assert.deepEqual(asked, []);
  });
}

test("a host's disks are a table, and a chain is a list", async () => {
  const setting = new FakeSetting({
    "disk.list": () =>
      Promise.resolve({
        disks: [
          { id: UUID, sizeBytes: MIB, usedBytes: 4096, frozen: true, children: 2, createdAtMs: 0 },
          {
            id: UUID.replace("3", "4"),
            parent: { kind: "disk", id: UUID },
            sizeBytes: MIB,
            usedBytes: 0,
            frozen: false,
            children: 0,
            guest: "web",
            createdAtMs: 0,
          },
          {
            id: UUID.replace("3", "5"),
            sizeBytes: MIB,
            usedBytes: 0,
            frozen: true,
            children: 1,
            createdAtMs: 0,
            sharedAt: "/mnt/small",
            home: { hereBytes: MIB, fileBytes: 4 * MIB, message: "it is full (no-room)" },
          },
        ],
      }),
    "disk.chain": () => Promise.resolve({ chain: disk.chain }),
  });
  assert.equal(await setting.run("disk", "list"), 0, setting.stderr.text);
  assert.match(setting.stdout.text, /324e6eaf\S+ +- +1 MiB +4 KiB +frozen, 2 disks on it/);
  assert.match(setting.stdout.text, /424e6eaf\S+ +324e6eaf\S+ .*written by web/);
  assert.match(
    setting.stdout.text,
    /frozen, lies in \/mnt\/small, 1 MiB of 4 MiB copied, waiting: it is full \(no-room\)/,
  );
  assert.equal(await setting.run("disk", "chain", UUID), 0, setting.stderr.text);
  assert.ok(setting.stdout.text.endsWith(`${UUID}\nimage abababababab\n`), setting.stdout.text);
});

test("loans are taken from a host, by force only when that is said", async () => {
  const asked: object[] = [];
  const loan = { disk: UUID, transfer: 7, host: "CN=b" };
  const setting = new FakeSetting({
    "disk.loans": () => Promise.resolve({ loans: [loan] }),
    "disk.release": (params) => {
      asked.push(params);
      return Promise.resolve({ loans: [loan] });
    },
  });
  assert.equal(await setting.run("disk", "loans"), 0, setting.stderr.text);
  assert.match(setting.stdout.text, /324e6eaf\S+ +7 +CN=b/);
  assert.equal(await setting.run("disk", "loans", "--release", "CN=b"), 0, setting.stderr.text);
  assert.equal(await setting.run("disk", "loans", "--release", "CN=b", "--force"), 0, setting.stderr.text);
  assert.deepEqual(asked, [
    { host: "CN=b", force: false },
    { host: "CN=b", force: true },
  ]);
  assert.match(setting.stdout.text, /1 loan of CN=b ended/);
  assert.equal(await setting.run("disk", "loans", "--force"), 2);
});
