import { strict as assert } from "node:assert";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import type { GuestConfig } from "../../../src/guest/index.js";
import { realClock } from "../../../src/base/index.js";
import {
  canBeHeld,
  HeldSaves,
  pauseDeadlineMs,
  releaseHeld,
  type HeldSave,
} from "../../../src/guest/held-save.js";
import { snapshotInTime } from "../../../src/guest/snapshot.js";
import { QmpClient } from "../../../src/guest/qmp.js";
import { NamedPipe } from "../../../src/memory/index.js";
import { ManualClock } from "../../support/lane-clock.js";
import { FakeQmp } from "../../support/fake-qmp.js";
import { buildNative } from "../../support/memory-stand-in.js";

const KIB = 1024;
const EVENT = (name: string) =>
  `{"event": "${name}", "timestamp": {"seconds": 1, "microseconds": 1}, "data": {}}\r\n`;

it("a saving is held up when all of it is written at once", () => {
  for (const stateKib of [7, 23, 30]) assert.equal(canBeHeld(stateKib * KIB), true);
  for (const stateKib of [1, 5, 31, 33, 4096]) assert.equal(canBeHeld(stateKib * KIB), false);
  assert.equal(canBeHeld(undefined), false);
});

it("a guest is held in its pause no longer than it may be, in steps either", async () => {
  const clock = new ManualClock();
  const calls: string[] = [];
  const emulator = {
    config: { memoryBytes: 64 * 1024 * KIB } as GuestConfig,
    stop: async () => (calls.push("stop"), { stoppedAtUs: 0 }),
    saveDeviceState: async () => (calls.push("save"), { compose: () => new Uint8Array() }),
    resume: async () => (calls.push("resume"), { resumedAtUs: 0 }),
  };
  const work = { onStopped: () => void calls.push("stopped"), atInstant: () => new Promise<void>(() => {}) };
  const snapshot = assert.rejects(snapshotInTime(emulator, work, clock), { code: "timeout" });
  await new Promise((resolve) => setImmediate(resolve));
  clock.advance(pauseDeadlineMs(64 * 1024 * KIB));
  await snapshot;
  // Whoever asked lets the guest run on, when it has let go of what it holds up.
  assert.deepEqual(calls, ["stop", "save", "stopped"]);
});

describe("a saving that is held up", () => {
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  let directory: string;
  let path: string;
  /** What happened, in order. */
  let course: string[];
  let fake: FakeQmp;
  let client: QmpClient;
  let held: HeldSave | undefined;

  before(() => {
    buildNative();
    directory = mkdtempSync(join(tmpdir(), "ramet-held-"));
  });
  after(() => rmSync(directory, { recursive: true, force: true }));
  beforeEach(() => {
    course = [];
    path = join(directory, "state");
  });

  /** An emulator that saves `stateBytes`, and a saving that expects `expectedBytes`. */
  async function scene(stateBytes: number, expectedBytes = stateBytes, pauseMs = 60_000): Promise<HeldSave> {
    const save = async (id: number): Promise<void> => {
      fake.send(EVENT("STOP"));
      const file = await open(path, "w");
      for (let rest = stateBytes; rest > 0; rest -= 32 * KIB)
        await file.write(Buffer.alloc(Math.min(rest, 32 * KIB), 7));
      await file.close();
      course.push("runs on");
      fake.send(`${EVENT("RESUME")}{"return": {}, "id": ${id}}\r\n`);
    };
    fake = await FakeQmp.open({
      answer: (_command, id) => (save(id).catch(() => course.push("save failed")), undefined),
    });
    client = await QmpClient.connect({
      path: fake.path,
      clock: realClock,
      deadlineMs: 2000,
      onEvent: ({ name }) => name === "STOP" && held?.noteStopped(),
      onEnd: () => {},
    });
    const saves = new HeldSaves((at, of) => NamedPipe.create(at, of));
    const options = { kind: "one", path, owner, pauseMs, clock: realClock };
    assert.equal(saves.begin(options), undefined);
    saves.note("one", expectedBytes);
    saves.forget("one");
    assert.equal(saves.begin(options), undefined);
    saves.note("one", expectedBytes);
    held = saves.begin(options);
    assert.ok(held !== undefined);
    return held;
  }

  function close(): void {
    held?.close();
    client.close();
    fake.close();
    assert.ok(!existsSync(path), "the pipe is removed");
  }

  const work = {
    onStopped: () => void course.push("stopped"),
    atInstant: async () => {
      course.push("saved");
      await new Promise((resolve) => setTimeout(resolve, 30));
      course.push("instant");
    },
  };

  for (const stateKib of [7, 23, 30]) {
    it(`lets ${stateKib} KiB of state go on when the work in the pause is done`, async () => {
      const save = await scene(stateKib * KIB);
      const { saved, isHeld } = await save.run(client, work);
      assert.deepEqual(course, ["stopped", "saved", "instant", "runs on"]);
      assert.equal(isHeld, true);
      assert.ok(saved.equals(Buffer.alloc(stateKib * KIB, 7)));
      close();
    });
  }

  it("says so when the guest ran on before, or the last of the state was saved later", async () => {
    for (const [stateBytes, expectedBytes] of [
      [3 * KIB, 20 * KIB],
      [50 * KIB, 20 * KIB],
    ] as const) {
      const save = await scene(stateBytes, expectedBytes);
      const { saved, isHeld } = await save.run(client, work);
      assert.equal(isHeld, false);
      assert.equal(saved.length, stateBytes);
      close();
    }
  });

  it("lets the guest run on when the work in the pause fails", async () => {
    for (const broken of ["onStopped", "atInstant"] as const) {
      const save = await scene(23 * KIB);
      const fails = { ...work, [broken]: () => assert.fail("by a test") };
      await assert.rejects(save.run(client, fails), /by a test/);
      assert.equal(course.at(-1), "runs on");
      close();
    }
  });

  it("lets the guest run on when the work in the pause does not end", async () => {
    const save = await scene(23 * KIB, 23 * KIB, 40);
    const hangs = { ...work, atInstant: () => new Promise<void>(() => {}) };
    await assert.rejects(save.run(client, hangs), { code: "timeout", message: /guest's pause/ });
    assert.deepEqual(course, ["stopped", "runs on"]);
    close();
  });

  it("fails with the emulator's refusal", async () => {
    const save = await scene(23 * KIB);
    fake.close();
    fake = await FakeQmp.open({
      answer: (_command, id) => `{"error": {"class": "GenericError", "desc": "no"}, "id": ${id}}\r\n`,
    });
    client.close();
    client = await QmpClient.connect({
      path: fake.path,
      clock: realClock,
      deadlineMs: 2000,
      onEvent: () => {},
      onEnd: () => {},
    });
    await assert.rejects(save.run(client, work), { code: "command-failed" });
    assert.deepEqual(course, []);
    close();
  });

  it("is let go on by the next agent when its own has ended", async () => {
    await scene(23 * KIB);
    const left = NamedPipe.create(path, owner);
    const opening = open(path, "w");
    const file = await opening;
    await file.close();
    // As at an agent's end: the pipe stays, without a reader.
    (await import("node:fs")).closeSync(left.fd);
    const waiting = open(path, "w");
    const end = releaseHeld(path);
    await (await waiting).close();
    end();
    assert.ok(!existsSync(path));
    releaseHeld(path)();
    client.close();
    fake.close();
  });
});
