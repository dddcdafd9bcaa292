import { strict as assert } from "node:assert";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { realClock, sleep } from "../../../src/base/index.js";
import { GuestError, MAX_LOG_BYTES, tailOf } from "../../../src/guest/index.js";
import { trimLog } from "../../../src/guest/logs.js";
import {
  argumentsOf,
  identifyProcess,
  isAlive,
  signalProcess,
  startDetached,
  waitForEnd,
  type ProcessEnd,
} from "../../../src/guest/process.js";

let directory = "";
before(() => {
  directory = mkdtempSync(join(tmpdir(), "ramet-process-"));
});
after(() => rmSync(directory, { recursive: true, force: true }));

function start(options: { script: string; descriptors?: number[]; onEnd?: (end: ProcessEnd) => void }) {
  return startDetached({
    binary: "/bin/sh",
    args: ["-c", options.script],
    environment: { GREETING: "hello" },
    descriptors: options.descriptors ?? [],
    logPath: join(directory, "log"),
    clock: realClock,
    deadlineMs: 5000,
    onEnd: options.onEnd ?? (() => {}),
  });
}

describe("a process", () => {
  it("is told apart by its start time, and another one with its pid is never signalled", async () => {
    const identity = await start({ script: "exec sleep 60" });
    const stranger = { pid: identity.pid, startTime: `${identity.startTime}0` };
    assert.ok(isAlive(identity));
    assert.ok(!isAlive(stranger));
    signalProcess(stranger, "SIGKILL");
    await waitForEnd(stranger, { clock: realClock, deadlineMs: 1000 });
    assert.ok(isAlive(identity));
    signalProcess(identity, "SIGKILL");
    await waitForEnd(identity, { clock: realClock, deadlineMs: 5000 });
    assert.equal(identifyProcess(identity.pid), undefined);
    assert.deepEqual(argumentsOf(identity.pid).filter(Boolean), []);
  });

  it("that does not end in time is a coded error", async () => {
    const identity = await start({ script: "exec sleep 60" });
    const isTimeout = (error: unknown) => error instanceof GuestError && error.code === "timeout";
    await assert.rejects(waitForEnd(identity, { clock: realClock, deadlineMs: 30 }), isTimeout);
    signalProcess(identity, "SIGKILL");
    await waitForEnd(identity, { clock: realClock, deadlineMs: 5000 });
  });

  it("has only the environment and the descriptors it is given, its output in a file, and tells its end", async () => {
    const given = join(directory, "given");
    writeFileSync(given, "content");
    const file = openSync(given, "r");
    const ends: ProcessEnd[] = [];
    const script = 'echo "$GREETING $HOME $(cat <&3)"; exit 3';
    await start({ script, descriptors: [file], onEnd: (end) => ends.push(end) });
    // Nothing else keeps the test alive: a detached process does not.
    while (ends.length === 0) await sleep(realClock, 5);
    closeSync(file);
    assert.deepEqual(ends[0], { code: 3, signal: undefined });
    assert.equal(readFileSync(join(directory, "log"), "utf8"), "hello  content\n");
  });

  it("that does not exist is a coded error", async () => {
    const options = {
      args: [],
      environment: {},
      descriptors: [],
      logPath: join(directory, "log"),
      clock: realClock,
      deadlineMs: 1000,
      onEnd() {},
    };
    const isMissing = (error: unknown) => error instanceof GuestError && error.code === "not-installed";
    await assert.rejects(startDetached({ ...options, binary: "/nonexistent/emulator" }), isMissing);
  });
});

describe("a log", () => {
  it("is quoted from its end", () => {
    const path = join(directory, "quoted.log");
    writeFileSync(path, "first\nsecond\n");
    assert.equal(tailOf(path, 8), "second");
    assert.equal(tailOf(path, 100), "first\nsecond");
    assert.equal(tailOf(join(directory, "missing.log"), 8), "");
  });

  it("is cut back when it has grown too long, and only then", () => {
    const path = join(directory, "long.log");
    writeFileSync(path, "short");
    trimLog(path);
    assert.equal(statSync(path).size, 5);
    writeFileSync(path, Buffer.concat([Buffer.alloc(MAX_LOG_BYTES, "x"), Buffer.from("the end")]));
    trimLog(path);
    assert.equal(statSync(path).size, 0);
    assert.match(tailOf(`${path}.1`, 100), /xthe end$/);
  });

  it("is cut back also where there is no room to keep a part of it", () => {
    const path = join(directory, "full.log");
    writeFileSync(path, Buffer.alloc(MAX_LOG_BYTES + 1, "x"));
    mkdirSync(`${path}.1`); // cannot be written, as on a full disk
    trimLog(path);
    assert.equal(statSync(path).size, 0);
  });
});
