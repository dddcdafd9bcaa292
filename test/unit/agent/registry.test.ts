import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import type { GuestRecord } from "../../../src/agent/guests/guest-record.js";
import { RecordFile } from "../../../src/agent/transfers/transfer-record.js";
import { FakeHost } from "./fake-host.js";
import { fakeChildRecord, FakeEmulator, FakeMemory, fakeRecord, partsFor } from "./fakes.js";

const MIB = 1024 * 1024;

let host: FakeHost;
let paths: FakeHost["paths"];
let source: FakeHost["source"];
let admission: FakeHost["admission"];
let told: string[];

beforeEach(async () => {
  host = await FakeHost.make();
  ({ paths, source, admission } = host);
  told = [];
  host.events.on("guest", ({ change, guest }) => told.push(`${change} ${guest.name} ${guest.state}`));
});
afterEach(() => host.remove());

const open = (maxGuests?: number) => host.open(maxGuests);
const leave: FakeHost["leave"] = (record, running) => host.leave(record, running);

describe("the registry of guests", () => {
  test("keeps names apart, counts guests, and removes all of one", async () => {
    const registry = await open(2);
    const record = fakeRecord();
    const guest = await registry.add(record);
    await assert.rejects(registry.add(fakeRecord()), { code: "name-taken" });
    await assert.rejects(registry.add(fakeRecord({ config: { name: "other", id: record.config.id } })), {
      code: "name-taken",
      message: /has guest .* already, as web \(running\)/,
    });
    await registry.add(fakeRecord({ config: { name: "second" } }));
    await assert.rejects(registry.add(fakeRecord({ config: { name: "third" } })), {
      code: "too-many-guests",
      message: /as many guests as it may have/,
    });
    assert.throws(() => registry.find("nobody"), { code: "no-such-guest" });
    guest.attach(await source.launch({ ...partsFor(admission, record), incoming: false }));
    await registry.remove(guest);
    assert.deepEqual(source.launched[0]?.calls, ["kill"]);
    assert.equal(admission.reservedBytes, 0);
    assert.ok(!existsSync(paths.guest(record.config.id)));
    assert.equal(registry.byName("web"), undefined);
    assert.equal(told.at(0), "added web running");
    assert.ok(told.includes("removed web running"));
  });

  test("finds running guests again, with their memory counted and their writers let go", async () => {
    const emulator = new FakeEmulator();
    emulator.state = "running";
    const memory = new FakeMemory();
    memory.registered = "write-protect";
    await leave(fakeRecord(), { emulator, memory });
    const registry = await open();
    const guest = registry.find("web");
    assert.equal(guest.state, "running");
    assert.deepEqual(memory.calls, ["track", "release"]);
    assert.equal(admission.reservedBytes, 256 * MIB);
    await registry.leaveAll();
    assert.ok(emulator.detached);
    assert.deepEqual(emulator.calls, [], "it runs on");
  });

  test("removes the state of a freezing that did not come to its end, and keeps a frozen guest's", async () => {
    const running = await leave(fakeRecord(), {});
    const frozen = await leave(fakeRecord({ state: "frozen", config: { name: "golden" } }), {});
    for (const { config } of [running, frozen]) writeFileSync(paths.template(config.id), "state");
    await open();
    assert.ok(!existsSync(paths.template(running.config.id)));
    assert.ok(existsSync(paths.template(frozen.config.id)));
  });

  test("takes a guest whose emulator has ended for crashed, and a stopped one for stopped", async () => {
    const crashed = await leave(fakeRecord());
    await leave(fakeRecord({ state: "stopped", config: { name: "off" } }));
    const registry = await open();
    assert.equal(registry.find("web").state, "crashed");
    assert.match(registry.find("web").view().message ?? "", /while no agent was running/);
    assert.ok(!existsSync(paths.guestMemory(crashed.config.id)));
    assert.equal(registry.find("off").state, "stopped");
    assert.equal(admission.reservedBytes, 0);
  });

  test("removes a child whose emulator ended before it was told to run, and says so of one that ran", async () => {
    for (const step of ["loading", "loaded", "starting", "running"] as const) {
      const child = await leave(fakeRecord({ state: "receiving", config: { name: step } }));
      RecordFile.create(paths.guestMemory(child.config.id), fakeChildRecord({ step }));
    }
    const registry = await open();
    assert.deepEqual(
      registry.list().map(({ name, state }) => `${name} ${state}`),
      ["running crashed"],
    );
    assert.equal(readdirSync(paths.guests).length, 1);
    assert.deepEqual(readdirSync(paths.memory), []);
  });

  test("ends warm emulators and guests that never came to run", async () => {
    const warm = await leave(fakeRecord({ state: "warm", config: { name: "warm" } }), {});
    const starting = await leave(fakeRecord({ state: "starting" }), {});
    const registry = await open();
    assert.deepEqual(registry.list(), []);
    assert.deepEqual(new Set(source.ended), new Set([warm.config.id, starting.config.id]));
    assert.deepEqual(readdirSync(paths.guests), []);
    assert.deepEqual(readdirSync(paths.memory), []);
  });

  test("says of a child that was receiving that its pages will not come", async () => {
    await leave(fakeRecord({ state: "receiving" }), {});
    const guest = (await open()).find("web");
    assert.equal(guest.state, "receiving");
    assert.match(guest.view().message ?? "", /will not come; remove it/);
  });

  test("leaves what it does not understand alone, and removes what has no record", async () => {
    const damaged = await leave(fakeRecord({ config: { name: "damaged" } }));
    writeFileSync(paths.record(damaged.config.id), "{}");
    const bare = fakeRecord();
    mkdirSync(paths.guest(bare.config.id));
    mkdirSync(paths.guestMemory("01234567-89ab-4cde-8f01-23456789abcd"));
    mkdirSync(join(paths.guests, "lost+found"));
    const registry = await open();
    assert.deepEqual(
      registry.list().map(({ id }) => id),
      [damaged.config.id],
    );
    assert.deepEqual(readdirSync(paths.guests).toSorted(), ["lost+found", damaged.config.id].toSorted());
    assert.deepEqual(readdirSync(paths.memory), [damaged.config.id]);
  });

  test("shows what it cannot read, under its name, and lets nobody take its place", async () => {
    const damaged = await leave(fakeRecord(), {});
    const text = readFileSync(paths.record(damaged.config.id), "utf8").replace(
      '"version": 1',
      '"version": 9',
    );
    writeFileSync(paths.record(damaged.config.id), text);
    const registry = await open();
    const guest = registry.find("web");
    assert.equal(guest.state, "unreadable");
    assert.match(guest.view().message ?? "", /is not a guest's record of this version.*was not touched/);
    assert.equal(registry.isWhole, false);
    assert.deepEqual(source.ended, []);
    await assert.rejects(registry.add(fakeRecord()), { code: "name-taken" });
    await guest.update({ message: "changed" });
    assert.equal(readFileSync(paths.record(damaged.config.id), "utf8"), text, "the record stays as it is");
    await registry.endUnanswering(guest);
    assert.deepEqual(source.ended, [damaged.config.id]);
    assert.equal(guest.state, "crashed");
    await registry.remove(guest);
    assert.deepEqual(readdirSync(paths.guests), []);
  });

  test("resumes a guest that was left in a fork's pause, once its writers are let go", async () => {
    const emulator = new FakeEmulator();
    const memory = new FakeMemory();
    memory.registered = "write-protect";
    await leave(fakeRecord(), { emulator, memory });
    const registry = await open();
    assert.deepEqual(memory.calls, ["track", "release"]);
    assert.deepEqual(emulator.calls, ["resume"]);
    assert.equal(registry.find("web").state, "running");
  });

  test("waits for an emulator that does not answer, and takes it over when it does", async () => {
    const emulator = new FakeEmulator();
    emulator.state = "running";
    emulator.isSilent = true;
    await leave(fakeRecord(), { emulator });
    const registry = await open();
    const guest = registry.find("web");
    assert.match(guest.view().message ?? "", /does not answer.*kill ends it/);
    emulator.isSilent = false;
    while (guest.view().message !== undefined) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(guest.state, "running");
  });

  test("keeps boot files of guests and of others who use them", async () => {
    const file = join(host.scratch, "vmlinuz");
    const holds = await Promise.all(
      ["one", "two", "three"].map(
        async (text) => (writeFileSync(file + text, text), host.boot.import(file + text)),
      ),
    );
    for (const hold of holds) hold.letGo();
    const registry = await open();
    assert.deepEqual(readdirSync(paths.boot), [], "at start nobody refers to them");
    const [one, two, three] = await Promise.all(
      ["one", "two", "three"].map((text) => host.boot.import(file + text)),
    );
    assert.ok(one && two && three);
    const guest = await registry.add(fakeRecord({ kernel: one.digest }));
    registry.digestsElsewhere.push(() => [two.digest]);
    for (const hold of [one, two, three]) hold.letGo();
    await registry.collectBootFiles();
    assert.deepEqual(readdirSync(paths.boot).toSorted(), [one.digest, two.digest].toSorted());
    await registry.remove(guest);
    assert.deepEqual(readdirSync(paths.boot), [two.digest]);
  });
});

describe("a guest", () => {
  async function running() {
    const registry = await open();
    const record = fakeRecord();
    const guest = await registry.add(record);
    guest.attach(await source.launch({ ...partsFor(admission, record), incoming: false }));
    const emulator = source.launched[0];
    assert.ok(emulator !== undefined);
    return { registry, guest, emulator };
  }

  test("is busy with one thing at a time, and says with what", async () => {
    const { guest } = await running();
    const leaveIt = guest.occupy({ what: "a fork to b (transfers 7)", transfers: [7] });
    assert.deepEqual(guest.view().transfers, [7]);
    assert.throws(() => guest.occupy({ what: "x", transfers: [] }), {
      code: "busy",
      message: /guest web is busy with a fork to b \(transfers 7\): see it with `ramet transfers`/,
    });
    leaveIt();
    leaveIt();
    guest.occupy({ what: "x", transfers: [] });
    assert.throws(() => guest.requireState("forked", "paused"), {
      code: "bad-state",
      message: /is running; it must be paused to be forked/,
    });
  });

  test("writes what is known of it, in order, and drops the message of a state it has left", async () => {
    const { guest } = await running();
    const onDisk = () => JSON.parse(readFileSync(paths.record(guest.id), "utf8")) as GuestRecord;
    guest.note({ state: "paused", message: "why", outgoing: { transfer: 1, host: "b" } });
    await guest.saved();
    assert.deepEqual(
      [onDisk().state, onDisk().message, onDisk().outgoing],
      ["paused", "why", { transfer: 1, host: "b" }],
    );
    await guest.update({ state: "running", outgoing: null });
    assert.deepEqual(
      [onDisk().state, onDisk().message, onDisk().outgoing],
      ["running", undefined, undefined],
    );
  });

  for (const [cause, state, message] of [
    ["asked", "stopped", /was killed/],
    ["guest", "stopped", /switched itself off/],
    ["crashed", "crashed", /emulator ended by SIGSEGV: last words/],
  ] as const) {
    test(`is ${state} when its emulator ends (${cause}), and all it had is free`, async () => {
      const { guest, emulator } = await running();
      emulator.finish({
        cause,
        expected: cause !== "crashed",
        signal: "SIGSEGV",
        lastLog: "first\nlast words\n",
      });
      await guest.whenOff();
      assert.equal(guest.state, state);
      assert.match(guest.view().message ?? "", message);
      assert.equal(guest.hasEmulator, false);
      assert.throws(() => guest.live, { code: "bad-state" });
      assert.equal(admission.reservedBytes, 0);
    });
  }

  test("keeps its memory for a transfer from its beginning, and is free when that is over", async () => {
    const { guest, emulator } = await running();
    const leave = guest.occupyMemory({ what: "a fork to b (transfer 7)", transfers: [7] });
    assert.throws(() => guest.requireIdle(), { code: "busy" });
    emulator.finish({ cause: "guest", expected: true, lastLog: "" });
    await guest.whenOff();
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(admission.reservedBytes, 256 * MIB, "the children still read it");
    leave();
    guest.requireIdle();
    await guest.whenFree();
    assert.equal(admission.reservedBytes, 0);
  });

  test("keeps its memory for as long as a transfer reads it", async () => {
    const { guest, emulator } = await running();
    let finish = (): void => {};
    const reading = new Promise<void>((resolve) => (finish = resolve));
    guest.onExit(() => reading);
    emulator.finish({ cause: "crashed", expected: false, lastLog: "" });
    await guest.whenOff();
    assert.equal(guest.state, "crashed");
    assert.equal(admission.reservedBytes, 256 * MIB);
    finish();
    await guest.whenFree();
    assert.equal(admission.reservedBytes, 0);
  });
});
