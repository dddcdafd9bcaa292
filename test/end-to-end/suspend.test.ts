import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { emulatorsBelow, Hosts, type Host } from "../support/hosts.js";
import { missingNextEmulator, nextEmulator } from "../support/next-emulator.js";
import { ask, runSample } from "../support/sample-guest.js";
import { killAt, stateOf, SuspendedLoad, type Sight } from "../support/suspended.js";

const PORT = 8290;
const MIB = 1024 * 1024;
const MAX_TRIES = 5;

interface Killing {
  of: "suspend" | "resume";
  victims: readonly ("agent" | "emulator")[];
  at: Sight;
  ms: number;
  always?: true;
}

/** Who is killed, how long after what was seen. RAMET_SUSPEND_KILLS=all plays each. */
const KILLINGS: readonly Killing[] = [
  { of: "suspend", victims: ["agent"], at: "saving", ms: 0 },
  { of: "suspend", victims: ["agent"], at: "stopped", ms: 0 },
  { of: "suspend", victims: ["agent"], at: "stopped", ms: 3 },
  { of: "suspend", victims: ["agent"], at: "written", ms: 0 },
  { of: "suspend", victims: ["agent"], at: "saved", ms: 0 },
  { of: "suspend", victims: ["agent"], at: "saved", ms: 5 },
  { of: "suspend", victims: ["emulator"], at: "written", ms: 0 },
  { of: "suspend", victims: ["emulator"], at: "saved", ms: 0 },
  { of: "suspend", victims: ["agent", "emulator"], at: "saved", ms: 0, always: true },
  { of: "resume", victims: ["agent"], at: "started", ms: 0 },
  { of: "resume", victims: ["agent"], at: "started", ms: 100 },
  { of: "resume", victims: ["emulator"], at: "started", ms: 0 },
  { of: "resume", victims: ["emulator"], at: "started", ms: 100 },
  { of: "resume", victims: ["agent", "emulator"], at: "started", ms: 50 },
  { of: "resume", victims: ["agent"], at: "told", ms: 0, always: true },
  { of: "resume", victims: ["agent"], at: "told", ms: 3 },
  { of: "resume", victims: ["agent"], at: "told", ms: 10 },
];

const skip = missingNextEmulator();
describe("a guest under load that is suspended and resumed", { skip }, () => {
  let hosts: Hosts;
  let a: Host;
  let load: SuspendedLoad;
  const other = nextEmulator();
  before(async () => {
    hosts = await Hosts.start(1, { configuration: { emulators: [other], limits: { memoryMib: 512 } } });
    a = hosts.at(0);
    const disks = [{ sizeBytes: 256 * MIB }];
    await runSample(a, { name: "web", hostPort: PORT, memoryMiB: 192, cpus: 2, disks });
    load = new SuspendedLoad(a, PORT);
    await load.start();
  });
  after(() => hosts.stop());

  const suspend = () => a.call("guest.suspend", { name: "web" });
  const resume = (emulator?: string) =>
    a.call("guest.resume", { name: "web", ...(emulator === undefined ? {} : { emulator }) });
  const view = async () => (await a.guests()).get("web");

  test("is nowhere but in its files, past two more agents, and runs on in another emulator", async () => {
    const generation = await ask<{ changes: number }>(a, PORT, "/vmgenid");
    const { availableBytes } = (await a.call("agent.info", {})).memory;
    const { guest } = await suspend();
    assert.equal(guest.state, "suspended");
    const sizes = guest.suspended;
    assert.ok(sizes !== undefined && sizes.stateBytes > 10_000 && sizes.allocatedBytes > 16 * MIB);
    assert.deepEqual(emulatorsBelow(a.stateDirectory), []);
    assert.equal(statSync(join(load.memory, "ram")).size, 192 * MIB);
    await assert.rejects(ask(a, PORT), "nobody has its port");
    await a.end("SIGKILL");
    await a.start();
    await a.takeOver();
    const found = (await view())?.suspended;
    // The kernel may have taken back a page that nobody wrote.
    assert.deepEqual({ ...found, allocatedBytes: 0 }, { ...sizes, allocatedBytes: 0 });
    assert.equal(
      (await a.call("agent.info", {})).memory.availableBytes,
      availableBytes,
      "it holds its memory",
    );
    const resumed = await resume("10.0");
    assert.match(resumed.emulator.version, /^10\.0/);
    assert.deepEqual(emulatorsBelow(a.stateDirectory), [resumed.emulator.pid]);
    await load.requireWhole();
    assert.equal((await ask<{ changes: number }>(a, PORT, "/vmgenid")).changes, generation.changes);
    await suspend();
    assert.match((await resume()).emulator.version, /^7\./, "and back");
    await load.requireWhole();
    assert.equal((await a.call("agent.info", {})).memory.availableBytes, availableBytes);
    assert.deepEqual(hosts.problems, []);
  });

  test("is refused whatever needs an emulator, and nobody takes its disk or its name", async () => {
    await suspend();
    const cure = { code: "bad-state", message: /is suspended.*ramet resume web/ };
    await assert.rejects(a.call("guest.fork", { name: "web" }), cure);
    await assert.rejects(a.call("guest.migrate", { name: "web", to: "127.0.0.99:1" }), cure);
    await assert.rejects(a.call("guest.freeze", { name: "web" }), cure);
    await assert.rejects(a.call("guest.exchange", { name: "web" }), { ...cure, message: /with --emulator/ });
    await assert.rejects(a.call("guest.stop", { name: "web" }), cure);
    await assert.rejects(suspend(), cure);
    const parent = (await view())?.disks?.[0]?.chain[0]?.id ?? "";
    const another = { memoryMiB: 64, append: "x", kernel: join(load.memory, "ram") };
    await assert.rejects(a.call("guest.run", { name: "web", ...another }), { code: "name-taken" });
    await assert.rejects(a.call("guest.run", { name: "other", ...another, disks: [{ parent }] }), {
      code: "in-use",
    });
    await resume();
    await assert.rejects(resume(), { code: "bad-state", message: /is running; it must be suspended/ });
    await load.requireWhole();
  });

  test("stays suspended when it cannot be resumed", async () => {
    await suspend();
    await assert.rejects(resume("99.0"), { code: "no-such-emulator" });
    const server = createServer().listen(PORT, a.address);
    await once(server, "listening");
    await assert.rejects(resume(), { code: "port-taken" });
    server.close();
    const path = join(load.memory, "suspended");
    const state = readFileSync(path);
    appendFileSync(path, "x");
    await assert.rejects(resume(), { code: "bad-record", message: /changed or damaged/ });
    writeFileSync(path, state);
    // What was saved by a newer emulator, or is of another machine, only the emulator itself can tell.
    assert.equal((await view())?.state, "suspended");
    assert.deepEqual(emulatorsBelow(a.stateDirectory), []);
    await resume();
    await load.requireWhole();
  });

  test("goes on from directories that were on another file system, as over a reboot", async () => {
    const disk = mkdtempSync(join(tmpdir(), "ramet-suspended-"));
    const [memory, state] = [a.memoryDirectory, a.stateDirectory];
    const copy = (from: string, to: string) => execFileSync("cp", ["-a", "--sparse=always", from, to]);
    try {
      await suspend();
      await a.end();
      copy(memory, join(disk, "memory"));
      copy(state, join(disk, "state"));
      for (const directory of [memory, state]) rmSync(directory, { recursive: true });
      copy(join(disk, "state"), state);
      mkdirSync(memory);
      await a.start();
      const gone = await view();
      assert.equal(gone?.state, "suspended");
      assert.match(gone.message ?? "", /not in .*there is no memory there/);
      await assert.rejects(resume(), { code: "not-ready", message: /Bring that directory back/ });
      copy(`${disk}/memory/.`, memory);
      await resume();
    } finally {
      rmSync(disk, { recursive: true, force: true });
    }
    await load.requireWhole();
  });

  for (const killing of KILLINGS) {
    if (process.env["RAMET_SUSPEND_KILLS"] !== "all" && killing.always !== true) continue;
    const { of, victims, at, ms } = killing;
    test(`${of}: ${victims.join(" and ")} killed ${ms} ms after it was ${at}`, async (context) => {
      let step = "not seen";
      let done: Promise<string> = Promise.resolve("");
      for (let tries = 0; tries < MAX_TRIES && step === "not seen"; tries += 1) {
        if ((await view())?.state !== "running") await resume();
        if (of === "resume") await suspend();
        const over = { isOver: false };
        const killed = killAt(a, load.memory, { victims, at, ms, over });
        done = (of === "suspend" ? suspend() : resume(tries % 2 === 0 ? "10.0" : undefined))
          .then(
            () => "done",
            (error: { code: string }) => error.code,
          )
          .finally(() => (over.isOver = true));
        step = await killed;
        if (step === "not seen") await done;
      }
      assert.notEqual(step, "not seen");
      if (victims.includes("agent")) {
        await a.end("SIGKILL");
        await a.start();
      }
      const outcome = await done;
      const state = await stateOf(a, ["running", "suspended"]);
      context.diagnostic(`killed when its record said ${step}; ${outcome}; it is ${state}`);
      assert.equal(emulatorsBelow(a.stateDirectory).length, state === "running" ? 1 : 0);
      if (state === "suspended") await resume();
      await load.requireWhole();
    });
  }

  test("is ended by kill, and removed", async () => {
    await suspend();
    const { availableBytes } = (await a.call("agent.info", {})).memory;
    const { memory } = load;
    const { guest } = await a.call("guest.kill", { name: "web" });
    assert.deepEqual([guest.state, guest.suspended], ["stopped", undefined]);
    assert.equal(existsSync(memory), false);
    assert.ok((await a.call("agent.info", {})).memory.availableBytes > availableBytes);
    await a.call("guest.remove", { name: "web" });
    assert.equal((await a.guests()).size, 0);
  });
});
