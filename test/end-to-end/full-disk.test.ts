import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample } from "../support/sample-guest.js";

const MIB = 1024 * 1024;
/** What the file system of the disks has, less what a guest that goes on needs. */
const FULL_BYTES = 160 * MIB;

let hosts: Hosts;
let a: Host;
let directory: string;
before(async () => {
  hosts = await Hosts.start(1);
  a = hosts.at(0);
  directory = join(a.stateDirectory, "disks");
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${FULL_BYTES},mode=0711`, "disks", directory]);
});
after(async () => {
  await a.clear();
  execFileSync("umount", [directory]);
  await hosts.stop();
});

test("a guest whose host has no room stands still until there is some, and loses nothing", async () => {
  await runSample(a, { name: "web", hostPort: 8080, disks: [{ sizeBytes: 512 * MIB }] });
  await ask(a, 8080, "/disk/start?pause=1000");
  const committed = async () => (await ask<{ committed: number }>(a, 8080, "/disk/status")).committed;
  await eventually("rows are committed", async () => (await committed()) > 20);
  const ballast = join(directory, "ballast");
  assert.throws(() => writeFileSync(ballast, Buffer.alloc(FULL_BYTES)), { code: "ENOSPC" });
  const view = async () => (await a.call("guest.show", { name: "web" })).guest;
  await eventually("the guest stands still", async () => (await view()).state === "paused");
  assert.match((await view()).message ?? "", /stopped by a disk: disk0: the file system of .* is full/);
  await assert.rejects(a.call("guest.fork", { name: "web" }), { code: "bad-state", message: /is full/ });
  // The next agent knows it, too.
  await a.end("SIGKILL");
  await a.start();
  await eventually("it still stands still", async () => (await view()).state === "paused");
  rmSync(ballast);
  await eventually("the guest goes on", async () => (await view()).state === "running");
  assert.equal((await view()).message, undefined);
  const before = await committed();
  await eventually("rows are committed again", async () => (await committed()) > before + 20);
  await ask(a, 8080, "/disk/stop");
  const said = await ask<{ wrong: number; after: number; failures: number }>(a, 8080, "/disk/verify");
  assert.deepEqual([said.wrong, said.after], [0, 0], JSON.stringify(said));
  const { failures } = await ask<{ failures: number }>(a, 8080, "/disk/status");
  assert.equal(failures, 0, "the guest was never told of it");
});
