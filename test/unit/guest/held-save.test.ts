import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { existsSync, fstatSync, mkdtempSync, openSync, readdirSync, rmSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import type { GuestConfig } from "../../../src/guest/index.js";
import { realClock } from "../../../src/base/index.js";
import {
  fullBuffersOf,
  HeldSaves,
  pauseDeadlineMs,
  releaseHeld,
  type HeldSave,
} from "../../../src/guest/held-save.js";
import { snapshotInTime } from "../../../src/guest/snapshot.js";
import { QmpClient } from "../../../src/guest/qmp.js";
import { canSeeWaiting, waitsFor, type FileIdentity } from "../../../src/guest/waiting.js";
import { NamedPipe } from "../../../src/memory/index.js";
import { ManualClock } from "../../support/lane-clock.js";
import { FakeQmp } from "../../support/fake-qmp.js";
import { buildNative } from "../../support/memory-stand-in.js";

const KIB = 1024;
const EVENT = (name: string) =>
  `{"event": "${name}", "timestamp": {"seconds": 1, "microseconds": 1}, "data": {}}\r\n`;

it("a saving is held up when how often the emulator writes is known, and a pipe takes all but the last of it", () => {
  for (const stateKib of [7, 23, 31]) assert.equal(fullBuffersOf(stateKib * KIB), 0);
  for (const stateKib of [33, 39, 55, 63]) assert.equal(fullBuffersOf(stateKib * KIB), 1);
  for (const stateKib of [65, 90]) assert.equal(fullBuffersOf(stateKib * KIB), 2);
  assert.equal(fullBuffersOf(140 * KIB), 4);
  for (const stateKib of [0, 1, 4, 31.9, 32, 32.4, 64, 100, 1020, 4096])
    assert.equal(fullBuffersOf(stateKib * KIB), undefined);
  assert.equal(fullBuffersOf(undefined), undefined);
});

/** Whether any thread of this process waits for a file: the emulator of these tests is a thread. */
function anyThreadWaitsFor(_pid: number, file: FileIdentity): boolean {
  return readdirSync("/proc/self/task").some((thread) => waitsFor(Number(thread), file));
}

it("it is seen whether a process waits for a file", async () => {
  buildNative();
  const directory = mkdtempSync(join(tmpdir(), "ramet-waiting-"));
  const pipe = NamedPipe.create(join(directory, "pipe"), {
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
  });
  pipe.resize(4096);
  const writer = spawn("head", ["--bytes=5000", "/dev/zero"], {
    stdio: ["ignore", openSync(join(directory, "pipe"), "w"), "inherit"],
  });
  const pid = writer.pid ?? 0;
  const own = statSync(directory);
  try {
    while (!waitsFor(pid, fstatSync(pipe.fd))) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(waitsFor(pid, own), false);
    assert.equal(waitsFor(process.pid, fstatSync(pipe.fd)), false);
    assert.equal(canSeeWaiting(pid), true);
    assert.equal(canSeeWaiting(2 ** 22), false);
    assert.equal(waitsFor(2 ** 22, own), false);
  } finally {
    pipe.close();
    rmSync(directory, { recursive: true });
  }
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
  async function scene(
    stateBytes: number,
    expectedBytes = stateBytes,
    {
      pauseMs = 60_000,
      isWaiting = anyThreadWaitsFor,
      breakMs = 0,
      refused = undefined as string | undefined,
    } = {},
  ): Promise<HeldSave> {
    const save = async (id: number): Promise<void> => {
      fake.send(EVENT("STOP"));
      const file = await open(path, "w");
      for (let rest = stateBytes; rest > 0;) {
        const piece = Math.min(rest, breakMs > 0 && rest === stateBytes ? 4 * KIB : 32 * KIB);
        await file.write(Buffer.alloc(piece, 7));
        rest -= piece;
        if (breakMs > 0) await new Promise((resolve) => setTimeout(resolve, breakMs));
      }
      await file.close();
      course.push("runs on");
      fake.send(`${EVENT("RESUME")}{"return": {}, "id": ${id}}\r\n`);
    };
    fake = await FakeQmp.open({
      answer(command, id) {
        if (command === "xen-save-devices-state")
          return (save(id).catch(() => course.push("save failed")), undefined);
        return command === refused
          ? `{"error": {"class": "GenericError", "desc": "no"}, "id": ${id}}\r\n`
          : `{"return": {}, "id": ${id}}\r\n`;
      },
    });
    client = await QmpClient.connect({
      path: fake.path,
      clock: realClock,
      deadlineMs: 2000,
      onEvent: ({ name }) => name === "STOP" && held?.noteStopped(),
      onEnd: () => {},
    });
    const saves = new HeldSaves((at, of) => NamedPipe.create(at, of), isWaiting);
    const options = { kind: "one", pid: process.pid, path, owner, pauseMs, clock: realClock };
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

  for (const stateKib of [7, 23, 30, 33, 55, 90]) {
    it(`lets ${stateKib} KiB of state go on when the work in the pause is done`, async () => {
      const save = await scene(stateKib * KIB);
      const { saved, isHeld } = await save.run(client, work);
      assert.deepEqual(course, ["stopped", "saved", "instant", "runs on"]);
      assert.equal(isHeld, true);
      assert.ok(saved.equals(Buffer.alloc(stateKib * KIB, 7)));
      close();
    });
  }

  it("freezes the guest's disks between the stop and the saving, and lets it run on whatever becomes of that", async () => {
    for (const refused of [undefined, "transaction"]) {
      course = [];
      const save = await scene(23 * KIB, 23 * KIB, { refused });
      const run = save.run(client, work, { command: "transaction", args: { actions: [] } });
      if (refused === undefined) assert.equal((await run).isHeld, true);
      else await assert.rejects(run, { code: "command-failed", message: /refused transaction/ });
      assert.deepEqual(
        fake.commands.map(({ execute }) => execute),
        ["qmp_capabilities", "stop", "transaction", "xen-save-devices-state", "cont"],
      );
      assert.deepEqual(course, ["stopped", "saved", "instant", "runs on"]);
      close();
    }
  });

  it("says so when the guest ran on before, or the last of the state was saved later", async () => {
    for (const [stateBytes, expectedBytes] of [
      [3 * KIB, 20 * KIB],
      [50 * KIB, 20 * KIB],
      [20 * KIB, 50 * KIB],
      [70 * KIB, 50 * KIB],
    ] as const) {
      const save = await scene(stateBytes, expectedBytes);
      const { saved, isHeld } = await save.run(client, work);
      assert.equal(isHeld, false);
      assert.equal(saved.length, stateBytes);
      close();
    }
  });

  it("says so when what the emulator waited for was not the pipe", async () => {
    const save = await scene(50 * KIB, 50 * KIB, { isWaiting: () => true, breakMs: 50 });
    const { isHeld } = await save.run(client, work);
    assert.equal(isHeld, false);
    assert.deepEqual(course, ["stopped", "runs on"]);
    close();
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
    const save = await scene(23 * KIB, 23 * KIB, { pauseMs: 40 });
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
