import assert from "node:assert/strict";
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { RecordFile } from "../../../src/agent/transfers/transfer-record.js";
import { FakeHost } from "./fake-host.js";
import { FakeEmulator, FakeMemory, fakeParentRecord, fakeRecord, FakeSource, partsFor } from "./fakes.js";

let host: FakeHost;
beforeEach(async () => {
  host = await FakeHost.make();
});
afterEach(() => host.remove());

/** The names of all that is left of guests on this host. */
const left = (): string[] => [...readdirSync(host.paths.guests), ...readdirSync(host.paths.memory)];

describe("a removal that an agent did not bring to its end", () => {
  test("is brought there by the next one, whatever of it was done, also when the emulator still runs", async () => {
    const marked = { ...fakeRecord({ state: "receiving" }), removing: true as const };
    const running = await host.leave(marked, {});
    RecordFile.create(host.paths.guestMemory(running.config.id), fakeParentRecord({ step: "paging" }));
    const ended = await host.leave({ ...fakeRecord(), removing: true });
    rmSync(host.paths.guestMemory(ended.config.id), { recursive: true });
    const registry = await host.open();
    assert.deepEqual(registry.list(), []);
    assert.deepEqual(registry.unfinished, []);
    assert.deepEqual(left(), []);
    assert.ok(host.source.ended.includes(running.config.id));
    assert.equal(registry.isWhole, true);
    await registry.add(ended);
  });

  test("is noted before the emulator is ended, and what else is noted later keeps that", async () => {
    const record = fakeRecord();
    const registry = await host.open();
    const guest = await registry.add(record);
    guest.attach(await host.source.launch({ ...partsFor(host.admission, record), incoming: false }));
    const [emulator] = host.source.launched;
    assert.ok(emulator !== undefined);
    const killed = new Promise<void>((resolve) => {
      emulator.kill = () => {
        resolve();
        return new Promise(() => {});
      };
    });
    void registry.remove(guest);
    await killed;
    await guest.update({ state: "paused", message: "said too late" });
    host.source.running.set(guest.id, { emulator, memory: new FakeMemory() });
    assert.deepEqual((await host.open()).list(), []);
    assert.deepEqual(host.source.ended, [guest.id]);
    assert.deepEqual(left(), []);
  });

  test("is tried again by whoever asks, and by the next agent, when the emulator could not be ended", async () => {
    const registry = await host.open();
    const guest = await registry.add(fakeRecord());
    host.source.endLeftover = () => Promise.reject(new Error("it does not end"));
    await assert.rejects(registry.remove(guest), /does not end/);
    assert.equal(registry.find("web"), guest);
    host.source = new FakeSource(host.paths);
    assert.deepEqual((await host.open()).list(), []);
    assert.deepEqual(left(), []);
  });

  test("needs no note where none can be written", async () => {
    const registry = await host.open();
    const guest = await registry.add(fakeRecord());
    rmSync(host.paths.guest(guest.id), { recursive: true });
    await registry.remove(guest);
    assert.deepEqual(registry.list(), []);
  });

  test("is known by the migration that was complete, where it could not be noted", async () => {
    for (const state of ["migrated", "crashed"] as const) {
      const moved = await host.leave(fakeRecord({ state, config: { name: state } }));
      const record = fakeParentRecord({ kind: "migrate", step: "complete" });
      RecordFile.create(host.paths.guestMemory(moved.config.id), record);
    }
    assert.deepEqual((await host.open()).list(), []);
    assert.deepEqual(left(), []);
  });
});

describe("what is kept beside a guest's memory", () => {
  test("stays, with the memory, for children of a parent that has ended and that they need", async () => {
    for (const state of ["running", "stopped", "crashed", "migrated"] as const) {
      const kind = state === "migrated" ? "migrate" : "fork";
      const step = state === "stopped" ? "told" : "paging";
      const parent = await host.leave(fakeRecord({ state, config: { name: state } }));
      const directory = host.paths.guestMemory(parent.config.id);
      RecordFile.create(directory, fakeParentRecord({ kind, step }));
      for (const name of ["ram", "copies", "parent-digests"]) writeFileSync(join(directory, name), "kept");
    }
    const registry = await host.open(4);
    assert.deepEqual(
      registry.unfinished.map(({ guest, parents }) => [guest.name, guest.state, parents.length]).toSorted(),
      [
        ["crashed", "crashed", 1],
        ["migrated", "crashed", 1],
        ["running", "crashed", 1],
        ["stopped", "stopped", 1],
      ],
    );
    for (const { guest } of registry.unfinished) {
      assert.deepEqual(readdirSync(host.paths.guestMemory(guest.id)).toSorted(), [
        "copies",
        "parent-digests",
        "ram",
        "transfer-7-parent.json",
      ]);
    }
  });

  test("goes with the memory of a guest that has ended, where no child needs it", async () => {
    for (const state of ["stopped", "crashed"] as const) {
      const over = await host.leave(fakeRecord({ state, config: { name: state } }));
      writeFileSync(host.paths.ram(over.config.id), "what an agent had yet to remove");
      RecordFile.create(host.paths.guestMemory(over.config.id), fakeParentRecord());
    }
    const registry = await host.open();
    assert.deepEqual(
      registry
        .list()
        .map(({ state }) => state)
        .toSorted(),
      ["crashed", "stopped"],
    );
    assert.deepEqual(readdirSync(host.paths.memory), []);
    assert.deepEqual(registry.unfinished, []);
  });

  test("is removed from a guest that runs, where no transfer needs it", async () => {
    const emulator = new FakeEmulator();
    emulator.state = "running";
    const guest = await host.leave(fakeRecord(), { emulator });
    const directory = host.paths.guestMemory(guest.config.id);
    const names = ["ram", "copies", "parent-digests", "transfer-7-parent.json.unfinished"];
    for (const name of names) writeFileSync(join(directory, name), "x");
    await host.open();
    assert.deepEqual(readdirSync(directory), ["ram"]);
  });

  test("is left where it cannot be understood, of a guest that has ended too", async () => {
    const over = await host.leave(fakeRecord({ state: "crashed" }));
    writeFileSync(join(host.paths.guestMemory(over.config.id), "transfer-7-parent.json"), "{}");
    const registry = await host.open();
    assert.equal(registry.find("web").state, "crashed");
    assert.match(
      registry.find("web").view().message ?? "",
      /could not be gone on with.*not a transfer's record/,
    );
    assert.equal(registry.isWhole, false);
    assert.deepEqual(readdirSync(host.paths.memory), [over.config.id]);
  });
});
