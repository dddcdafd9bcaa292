import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { emulatorsBelow, Hosts, type Host } from "../support/hosts.js";
import { missingNextEmulator, nextEmulator } from "../support/next-emulator.js";
import { LossyDisk } from "../support/power-cut.js";
import { runSample } from "../support/sample-guest.js";
import { killAt, stateOf, SuspendedLoad } from "../support/suspended.js";

const PORT = 8291;
const MIB = 1024 * 1024;
const DISK_MIB = 512;

const skip = existsSync("/dev/loop-control") ? missingNextEmulator() : "this machine has no loop devices";

describe("a host whose guests' memory outlives its kernel", { skip }, () => {
  const scratch = mkdtempSync(join(tmpdir(), "rp-"));
  const roots = { state: join(scratch, "s"), memory: join(scratch, "m") };
  /** Its memory, and its state with the disks: what is not synced in time is lost. */
  let lossy: LossyDisk[] = [];
  let hosts: Hosts;
  let a: Host;
  let load: SuspendedLoad;
  const other = nextEmulator();
  /** What the file system makes of its own. */
  const forgetFound = () => rmSync(join(roots.memory, "a", "lost+found"), { recursive: true, force: true });
  before(async () => {
    lossy = Object.values(roots).map((root) => new LossyDisk(join(root, "a"), DISK_MIB));
    forgetFound();
    const configuration = { emulators: [other], memoryFileSystem: "any", limits: { memoryMib: 256 } };
    hosts = await Hosts.start(1, { roots, configuration });
    a = hosts.at(0);
    const disks = [{ sizeBytes: 256 * MIB }];
    await runSample(a, { name: "web", hostPort: PORT, memoryMiB: 128, disks });
    load = new SuspendedLoad(a, PORT);
    await load.start();
  });
  after(async () => {
    await hosts.stop();
    for (const disk of lossy) await disk.end();
    rmSync(scratch, { recursive: true, force: true });
  });

  test("refuses what needs memory that is tracked, and says why", async () => {
    const refusal = { code: "refused", message: /is not on tmpfs/ };
    await assert.rejects(a.call("guest.fork", { name: "web" }), refusal);
    await assert.rejects(a.call("guest.freeze", { name: "web" }), refusal);
    await assert.rejects(a.call("guest.warm", { name: "web" }), refusal);
    await load.requireWhole();
  });

  test("goes on with a suspended guest after its power was cut", async () => {
    await a.call("guest.suspend", { name: "web" });
    for (const disk of lossy) disk.cut();
    await a.end("SIGKILL");
    assert.deepEqual(emulatorsBelow(a.stateDirectory), []);
    for (const disk of lossy) await disk.powerOn();
    forgetFound();
    await a.start();
    const guest = (await a.guests()).get("web");
    assert.deepEqual([guest?.state, guest?.message], ["suspended", undefined]);
    await a.call("guest.resume", { name: "web", emulator: "10.0" });
    await load.requireWhole();
  });

  test("has a guest that crashed when its emulator ends before it was saved", async () => {
    const killed = killAt(a, load.memory, {
      victims: ["emulator"],
      at: "saving",
      ms: 0,
      over: { isOver: false },
    });
    const suspended = a.call("guest.suspend", { name: "web" });
    await Promise.all([killed, assert.rejects(suspended, { code: "suspend-failed" })]);
    assert.equal(await stateOf(a, ["crashed"]), "crashed");
    assert.deepEqual(emulatorsBelow(a.stateDirectory), []);
  });
});
