import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Worker } from "node:worker_threads";
import { AssertionError, realClock, withDeadline } from "../../../src/base/index.js";
import { nativePaths, preloadEnvironment } from "../../../src/memory/index.js";
import { ERRNO, errnoName, loadNative, type Native } from "../../../src/memory/native.js";
import { buildNative } from "../../support/memory-stand-in.js";

const DEADLINE_MS = 20_000;
const PAGE_FAULT = 0x12;
const REMAP = 0x14;

/** A message as the kernel writes it: struct uffd_msg of linux/userfaultfd.h. */
function message(event: number, address: number): Buffer {
  const bytes = Buffer.alloc(32);
  bytes[0] = event;
  bytes.writeBigUInt64LE(BigInt(address), 16);
  return bytes;
}

describe("the addon", () => {
  let native: Native;
  let directory: string;
  let fd: number; // a pipe with a name, in place of a userfaultfd
  before(() => {
    buildNative();
    native = loadNative();
    directory = mkdtempSync(join(tmpdir(), "ramet-test-"));
    execFileSync("mkfifo", [join(directory, "faults")]);
    fd = openSync(join(directory, "faults"), constants.O_RDWR | constants.O_NONBLOCK);
  });
  after(() => {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  it("delivers faults in batches, skips other events, and keeps no process alive once unwatched", async () => {
    const addresses = new Float64Array(4);
    const batches: number[][] = [];
    const enough = new Promise<void>((resolve, reject) => {
      const watcher = native.watch(fd, addresses, (count) => {
        batches.push([...addresses.subarray(0, count)]);
        if (batches.flat().length < 5) return;
        native.unwatch(watcher as Exclude<typeof watcher, number>);
        native.unwatch(watcher as Exclude<typeof watcher, number>);
        resolve();
      });
      if (typeof watcher === "number") reject(new Error(errnoName(watcher)));
    });
    const high = 0x7ffffffff000;
    writeSync(
      fd,
      Buffer.concat([1, 2, 3].map((at) => message(PAGE_FAULT, at * 4096)).concat(message(REMAP, 9))),
    );
    writeSync(fd, Buffer.concat([message(PAGE_FAULT, 4096 * 4), message(PAGE_FAULT, high)]));
    await withDeadline(realClock, DEADLINE_MS, "the faults", enough);
    assert.deepEqual(batches, [
      [4096, 8192, 12288],
      [16384, high],
    ]);
  });

  it("reports why a descriptor cannot be watched or read", async () => {
    const file = openSync("/dev/null", constants.O_RDWR);
    const cannotPoll = native.watch(file, new Float64Array(1), () => {});
    assert.equal(typeof cannotPoll, "number");
    closeSync(file);
  });

  it("works in a worker, unwatched or terminated", async () => {
    for (const end of ["unwatch", "terminate"]) {
      const program = new URL("../../support/memory-watch-worker.mjs", import.meta.url);
      const worker = new Worker(program, { workerData: { addon: nativePaths().addon, fd } });
      const next = (what: string): Promise<unknown[]> =>
        withDeadline(realClock, DEADLINE_MS, what, once(worker, "message"));
      assert.deepEqual(await next("the worker's start"), ["watching"]);
      const faults = next("the worker's faults");
      writeSync(fd, message(PAGE_FAULT, 4096));
      assert.deepEqual(await faults, [[4096]]);
      const exited = withDeadline(realClock, DEADLINE_MS, "the worker's end", once(worker, "exit"));
      if (end === "terminate") void worker.terminate();
      else worker.postMessage("unwatch");
      await exited;
    }
  });

  it("returns negative error numbers and refuses wrong arguments", () => {
    assert.equal(native.wake(fd, 0, 4096), -ERRNO.ENOTTY);
    assert.equal(native.openProcess(2 ** 22 + 1), -ERRNO.ESRCH);
    assert.equal(native.seek(fd, 0, 0), -ERRNO.ESPIPE);
    assert.equal(errnoName(-ERRNO.EEXIST), "EEXIST");
    const wrong = native as unknown as Record<string, (...values: unknown[]) => unknown>;
    assert.throws(() => wrong["wake"]?.(fd, 0), TypeError);
    assert.throws(() => wrong["wake"]?.(fd, "0", 4096), TypeError);
    assert.throws(() => wrong["watch"]?.(fd, new Float64Array(257), () => {}), TypeError);
    assert.throws(() => wrong["watch"]?.(fd, new Float64Array(1), 1), TypeError);
    assert.throws(() => wrong["unwatch"]?.({}), TypeError);
    assert.throws(() => wrong["copy"]?.(fd, 0, 1, 4096, new Uint8Array(4096)), RangeError);
    assert.throws(() => wrong["copy"]?.(fd, 0, -1, 1, new Uint8Array(4096)), RangeError);
    assert.throws(() => wrong["copy"]?.(fd, 0, 0, 8, new Float64Array(1)), RangeError);
  });
});

describe("the preloaded library", () => {
  before(() => buildNative());

  it("is named to the emulator together with its descriptor", () => {
    assert.deepEqual(preloadEnvironment(3), { LD_PRELOAD: nativePaths().preload, RAMET_USERFAULTFD: "3" });
    assert.throws(() => preloadEnvironment(2), AssertionError);
  });

  it("ends a process that it cannot prepare, with one line", () => {
    assert.throws(
      () =>
        execFileSync("/bin/true", [], {
          env: { LD_PRELOAD: nativePaths().preload },
          stdio: ["ignore", "ignore", "pipe"],
        }),
      (thrown: unknown) => {
        const { status, stderr } = thrown as { status: number; stderr: Buffer };
        assert.match(stderr.toString(), /^ramet: RAMET_USERFAULTFD [^\n]*\n$/);
        return status === 127;
      },
    );
  });
});
