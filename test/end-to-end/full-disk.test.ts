import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
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

test("it is taken over where nothing at all can be written: neither its record nor that its base disk is used", async () => {
  const roots = { state: mkdtempSync(join(tmpdir(), "rf-")), memory: mkdtempSync("/dev/shm/rf-") };
  const state = join(roots.state, "a");
  mkdirSync(state);
  const size = 2 * FULL_BYTES;
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size},mode=0700`, "state", state]);
  try {
    const others = await Hosts.start(1, { roots, port: 7172 });
    try {
      const host = others.at(0);
      const raw = join(roots.state, "raw");
      writeFileSync(raw, "base");
      truncateSync(raw, 512 * MIB);
      await host.call("image.import", { path: raw, identifier: "base" });
      await runSample(host, { name: "web", hostPort: 8081, disks: [{ image: "base" }] });
      await ask(host, 8081, "/disk/start?pause=1000");
      const committed = async () => (await ask<{ committed: number }>(host, 8081, "/disk/status")).committed;
      await eventually("rows are committed", async () => (await committed()) > 20);
      const ballast = join(state, "ballast");
      assert.throws(() => writeFileSync(ballast, Buffer.alloc(size)), { code: "ENOSPC" });
      const view = async () => (await host.call("guest.show", { name: "web" })).guest;
      const standsStill = async () => {
        const { state: now, message = "" } = await view();
        return now === "paused" && /^stopped by a disk: disk0: the file system of .* is full/.test(message);
      };
      await eventually("the guest stands still", standsStill);
      await host.end("SIGKILL");
      await host.start();
      await eventually("it still stands still, and it is said why", standsStill);
      const { images } = await host.call("image.stored", {});
      assert.deepEqual(images[0]?.usedBy, ["default"]);
      rmSync(ballast);
      await eventually("the guest goes on", async () => (await view()).state === "running");
      const before = await committed();
      await eventually("rows are committed again", async () => (await committed()) > before + 20);
    } finally {
      await others.stop();
    }
  } finally {
    execFileSync("umount", [state]);
    for (const root of Object.values(roots)) rmSync(root, { recursive: true });
  }
});
