import assert from "node:assert/strict";
import { openDisks } from "../../../src/agent/disks/open-disks.js";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { LOCAL_IDENTITY, realClock, silentLog } from "../../../src/base/index.js";
import { RemoteError } from "../../../src/control/index.js";
import { AgentError } from "../../../src/agent/errors.js";
import { EventHub } from "../../../src/agent/events.js";
import { Admission } from "../../../src/agent/guests/admission.js";
import { writeRecord, type GuestRecord } from "../../../src/agent/guests/guest-record.js";
import { GuestRegistry } from "../../../src/agent/guests/registry.js";
import type { Services } from "../../../src/agent/services.js";
import { BootStore } from "../../../src/agent/store/boot-store.js";
import {
  FormerChildren,
  KEEP_FORMER_MS,
  MAX_FORMER_CHILDREN,
  type FormerChild,
} from "../../../src/agent/store/former-children.js";
import { Paths } from "../../../src/agent/store/paths.js";
import { MigrationEnd } from "../../../src/agent/transfers/migration-end.js";
import { rollBack } from "../../../src/agent/transfers/roll-back.js";
import {
  RecordFile,
  type ChildRecord,
  type ParentRecord,
} from "../../../src/agent/transfers/transfer-record.js";
import { TransferError } from "../../../src/transfer/index.js";
import { ManualClock } from "../../support/lane-clock.js";
import { fakeChildRecord, fakeRecord, FakeSource, noImages } from "./fakes.js";

const MIB = 1024 * 1024;
const holder = { kind: "certificate", name: "a" } as const;
const log = silentLog;

let scratch: string;
let paths: Paths;
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), "ramet-former-"));
  paths = new Paths({ stateDirectory: join(scratch, "state"), memoryDirectory: join(scratch, "memory") });
  mkdirSync(paths.guests, { recursive: true });
  mkdirSync(paths.memory);
});
afterEach(() => rmSync(scratch, { recursive: true }));

const open = (clock = realClock) => FormerChildren.open({ path: paths.formerChildren, clock, log });
const former = (transfer: number, changes: Partial<FormerChild> = {}): FormerChild => ({
  transfer,
  holder,
  guest: "web",
  leftAtMs: realClock.wallMs(),
  complete: true,
  ...changes,
});

describe("what is remembered of migrated guests that ran here", () => {
  test("outlives the agent, once for each holder's transfer", async () => {
    const store = await open();
    await Promise.all([store.add(former(7)), store.add(former(8)), store.add(former(7, { movedTo: "c" }))]);
    await store.add(former(7, { holder: { kind: "certificate", name: "x" } }));
    writeFileSync(`${paths.formerChildren}.0a.unfinished`, "{");
    const next = await open();
    assert.deepEqual(
      next.of(7).map((child) => [child.holder?.name, child.movedTo]),
      [
        ["a", "c"],
        ["x", undefined],
      ],
    );
    assert.equal(next.of(8).length, 1);
    assert.deepEqual(next.of(9), []);
    assert.deepEqual(
      readdirSync(join(scratch, "state")).filter((name) => name.startsWith("former")),
      ["former-children.json"],
    );
  });

  test("is forgotten after a month, and the oldest of too many before that", async () => {
    const nowMs = realClock.wallMs();
    const full = Array.from({ length: MAX_FORMER_CHILDREN }, (_, index) => former(index + 1));
    const stale = former(20_000, { leftAtMs: nowMs - KEEP_FORMER_MS });
    writeFileSync(paths.formerChildren, JSON.stringify({ version: 1, children: [stale, ...full] }));
    const store = await open();
    assert.deepEqual([store.of(20_000).length, store.of(1).length], [0, 1]);
    await store.add(former(30_000));
    assert.deepEqual([store.of(1).length, store.of(2).length, store.of(30_000).length], [0, 1, 1]);
    const later = { ...realClock, wallMs: () => nowMs + 2 * KEEP_FORMER_MS };
    assert.deepEqual((await open(later)).of(30_000), []);
  });

  test("is put aside when it cannot be read: nobody is told that a child was never here until its operator says so", async () => {
    const foreign = JSON.stringify({ version: 2, children: [] });
    for (const text of ["{", "", foreign, JSON.stringify({ version: 1, children: [{ transfer: 0 }] })]) {
      writeFileSync(paths.formerChildren, text);
      const store = await open();
      const damaged = `${paths.formerChildren}.damaged`;
      assert.equal(readFileSync(damaged, "utf8"), text);
      assert.throws(() => store.requireWhole(7), { code: "not-ready", message: /damaged/ });
      await store.add(former(7));
      const next = await open();
      assert.deepEqual([next.of(7).length, next.isWhole], [1, false]);
      rmSync(damaged);
      assert.doesNotThrow(() => next.requireWhole(7));
    }
  });

  test("is not taken for known when it could not be written", async () => {
    const store = await open();
    await store.add(former(7));
    rmSync(join(scratch, "state"), { recursive: true });
    await assert.rejects(store.add(former(8)), { code: "ENOENT" });
    assert.deepEqual([store.of(7).length, store.of(8).length], [1, 0]);
    mkdirSync(join(scratch, "state"));
    await store.add(former(9));
    assert.deepEqual([(await open()).of(7).length, (await open()).of(9).length], [1, 1]);
  });
});

describe("the removal of a guest that came here", () => {
  const parentOf = (kind: "fork" | "migrate", more: object = {}) =>
    ({ guest: "web", host: "a", transfer: 7, kind, holder, ...more }) as NonNullable<GuestRecord["parent"]>;

  async function registryOn(formerChildren: FormerChildren): Promise<GuestRegistry> {
    const room = () => ({ totalBytes: 1024 * MIB, freeBytes: 1024 * MIB, ownBytes: 0 });
    return GuestRegistry.open({
      paths,
      source: new FakeSource(paths),
      boot: await BootStore.open(paths.boot),
      disks: await openDisks({
        paths,
        configuration: { name: "a", sharedDirectories: [] },
        images: noImages,
        clock: realClock,
        log: silentLog,
      }),
      formerChildren,
      admission: new Admission({ limitBytes: undefined, reserveBytes: 0, room }),
      events: new EventHub(),
      maxGuests: 9,
      clock: realClock,
      log,
    });
  }

  test("by a migration is remembered when it may have run, with where it went on to", async () => {
    const store = await open();
    const registry = await registryOn(store);
    const outgoing = { transfer: 8, host: "c" };
    const record = { ...fakeRecord(), parent: parentOf("migrate", { complete: true }), outgoing };
    await registry.remove(await registry.add(record));
    const [{ leftAtMs, ...rest } = former(1)] = store.of(7);
    assert.deepEqual(rest, { transfer: 7, guest: "web", complete: true, holder, movedTo: "c" });
    assert.ok(leftAtMs > 0);
  });

  test("leaves nothing of a fork's, of one that never ran, or of one that was started here", async () => {
    const store = await open();
    const registry = await registryOn(store);
    await registry.remove(await registry.add({ ...fakeRecord(), parent: parentOf("fork") }));
    await registry.remove(await registry.add(fakeRecord()));
    await registry.remove(await registry.add({ ...fakeRecord(), parent: parentOf("migrate") }), {
      ran: false,
    });
    for (const [step, count] of [
      ["loaded", 0],
      ["running", 1],
    ] as const) {
      const guest = await registry.add({ ...fakeRecord(), parent: parentOf("migrate") });
      mkdirSync(paths.guestMemory(guest.id));
      const child: ChildRecord = fakeChildRecord({ step });
      RecordFile.create(paths.guestMemory(guest.id), child);
      await registry.remove(guest);
      assert.equal(store.of(7).length, count, `its record said ${step}`);
    }
  });

  test("is remembered too when an earlier agent did not come to it, and its emulator is gone", async () => {
    const outgoing = { transfer: 8, host: "c" };
    const record = {
      ...fakeRecord({ state: "migrated" }),
      parent: parentOf("migrate", { complete: true }),
      outgoing,
    };
    const { id } = record.config;
    mkdirSync(paths.guest(id));
    mkdirSync(paths.guestMemory(id));
    await writeRecord(paths.record(id), record);
    RecordFile.create(paths.guestMemory(id), fakeChildRecord({ step: "running", complete: {} }));
    RecordFile.create<ParentRecord>(paths.guestMemory(id), {
      version: 1,
      side: "parent",
      transfer: 8,
      kind: "migrate",
      step: "complete",
      token: "t".repeat(32),
      url: "wss://192.0.2.3:7070",
      host: "c",
      peerGuest: "web",
      verify: false,
      paused: false,
      sweep: "on",
      compress: false,
      startedAtMs: 1,
    });
    const store = await open();
    const registry = await registryOn(store);
    assert.deepEqual(registry.list(), []);
    assert.deepEqual(
      store.of(7).map(({ movedTo }) => movedTo),
      ["c"],
    );
  });

  test("is refused while it cannot be noted, and changes nothing then", async () => {
    const store = await open();
    const registry = await registryOn(store);
    const guest = await registry.add({ ...fakeRecord(), parent: parentOf("migrate") });
    rmSync(paths.formerChildren, { force: true });
    mkdirSync(join(paths.formerChildren, "in-the-way"), { recursive: true });
    await assert.rejects(registry.remove(guest));
    assert.equal(registry.byName("web"), guest);
    assert.ok(existsSync(paths.record(guest.id)));
    rmSync(paths.formerChildren, { recursive: true });
    await registry.remove(guest);
    assert.equal(store.of(7).length, 1);
  });
});

describe("the parent of a migrated child that ran and is gone", () => {
  const wentOn = new RemoteError("has-run", "guest web has run on b; it went on to c");

  function scene() {
    const did: string[] = [];
    const record: Partial<GuestRecord> = {
      state: "paused",
      outgoing: { transfer: 7, host: "b", url: "wss://b:1", holder: LOCAL_IDENTITY, leaseMs: 60_000 },
    };
    const emulator = { resume: async () => void did.push("resume") };
    const guest = {
      name: "web",
      state: "paused",
      hasEmulator: true,
      record,
      live: { emulator },
      config: { network: { mode: "none" } },
      log,
      requireIdle: () => {},
      note: () => {},
      update: async ({ state, message }: { state?: string; message?: string }) =>
        void did.push(`${state ?? "as it was"}: ${message ?? ""}`),
    };
    const client = { call: () => Promise.reject(wentOn) };
    const entry = { transfer: 7, lastHeardMs: () => realClock.wallMs(), enter: () => {} };
    const services = {
      registry: { find: () => guest },
      book: { find: () => entry },
      peers: { link: async () => ({ client, identity: LOCAL_IDENTITY }) },
      configuration: { name: "a", limits: { migrationLeaseSeconds: 60 } },
      clock: realClock,
      log,
    } as unknown as Services;
    return { did, guest, services, entry };
  }

  test("is let run on by an operator only who says that the guest runs nowhere", async () => {
    const { did, services } = scene();
    const params = { name: "web", dryRun: false };
    await assert.rejects(rollBack(services, { ...params, force: false }), {
      code: "unconfirmed",
      message: /it went on to c.*Two must not run.*--force/,
    });
    assert.equal(did.length, 0);
    assert.equal((await rollBack(services, { ...params, force: true })).done, true);
    assert.ok(did.includes("resume"));
  });

  test("is removed, when it came by a migration itself, as soon as a full disk lets that be noted", async () => {
    const { did, guest, services, entry } = scene();
    const clock = new ManualClock();
    const full = [new AgentError("no-room", "the disk is full"), undefined];
    const remove = async () => {
      did.push("remove");
      const error = full.shift();
      if (error !== undefined) throw error;
    };
    const finish = async (atEnd: () => Promise<void>) => void (await atEnd());
    const child = { entry, session: {}, record: {}, target: { host: "c" }, detached: false, finish };
    const parts = { services: { ...services, clock, registry: { remove } }, guest, child };
    const all = { ...parts, vacate: () => {}, leave: () => void did.push("left") };
    const end = new MigrationEnd(all as unknown as ConstructorParameters<typeof MigrationEnd>[0]);
    const finished = end.finish();
    await turn();
    assert.deepEqual(did, ["remove"]);
    clock.advance(10_000);
    await finished;
    assert.deepEqual(did, ["remove", "remove", "left"]);
  });

  test("stays stopped, and says what its host says, when it is undecided", async () => {
    const { did, guest, services, entry } = scene();
    const session = { phase: { phase: "paging" }, fail: () => {} };
    const child = {
      entry,
      session,
      record: {},
      target: { host: "b", settle: async () => ({ kept: wentOn.message }) },
      cancelled: false,
      detached: false,
      markUndecided: () => {},
      fail: () => {},
    };
    const parts = { services, guest, child, vacate: () => {}, leave: () => void did.push("left") };
    const end = new MigrationEnd(parts as unknown as ConstructorParameters<typeof MigrationEnd>[0]);
    await end.decide(new TransferError("undecided", "by a test"), 1);
    assert.deepEqual(did, [
      "left",
      "paused: stopped as it was when b took over; that failed: guest web has run on b; it went on to c. " +
        "To let it run on from there: ramet rollback web; to give it up: ramet remove web",
    ]);
  });
});
