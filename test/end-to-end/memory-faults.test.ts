import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { PAGE_BYTES, silentLog } from "../../src/base/index.js";
import { checkKernel, GuestMemory, MemoryError } from "../../src/memory/index.js";
import type { FillableMemory, TrackedMemory } from "../../src/transfer/ports.js";
import { FaultLog } from "../support/memory-faults.js";
import { allocatedBytes, createRamFile, MemoryStandIn } from "../support/memory-stand-in.js";

const PAGE_COUNT = 64;
const page = (value: number): Buffer => Buffer.alloc(PAGE_BYTES, value);
const hasCode = (code: string) => (thrown: unknown) => thrown instanceof MemoryError && thrown.code === code;

async function startGuest(
  test: TestContext,
  options: { cut?: boolean; preload?: boolean; device?: string } = {},
) {
  const guest = await MemoryStandIn.start({ pageCount: PAGE_COUNT, ...options });
  test.after(() => guest.close());
  return guest;
}

function openMemory(test: TestContext, guest: MemoryStandIn): GuestMemory {
  const memory = GuestMemory.open({ pid: guest.pid, ramPath: guest.ramPath, log: silentLog });
  test.after(() => memory.close());
  return memory;
}

describe("a child's memory", () => {
  it("skips, counts and wakes pages of a run that exist already", async (test) => {
    const guest = await startGuest(test);
    const memory = openMemory(test, guest).fillable();
    const faults = new FaultLog();
    memory.fill(faults.report);
    memory.install(11, page(1));
    memory.install(13, page(1));
    const read = guest.read(14);
    await faults.reported(14);
    memory.install(10, Buffer.concat([10, 11, 12, 13, 14].map(page)));
    assert.equal(await read, 14);
    assert.deepEqual(await Promise.all([10, 11, 12, 13].map((index) => guest.read(index))), [10, 1, 12, 1]);
    memory.installZero({ first: 9, count: 3 });
    assert.deepEqual(await Promise.all([9, 10, 11].map((index) => guest.read(index))), [0, 10, 1]);
    assert.equal(memory.duplicates, 4);
  });

  it("installs runs across the kernel's areas", async (test) => {
    const guest = await startGuest(test, { cut: true });
    const memory = openMemory(test, guest).fillable();
    memory.fill(() => {});
    const pages = Array.from({ length: PAGE_COUNT }, (_, index) => page(index));
    memory.install(0, Buffer.concat(pages));
    for (const index of [0, 15, 16, 31, 32, 63]) assert.equal(await guest.read(index), index);
  });

  it("serves touches by the kernel", async (test) => {
    const guest = await startGuest(test);
    const memory = openMemory(test, guest).fillable();
    const faults = new FaultLog();
    memory.fill(faults.report);
    const read = guest.kernelRead(3);
    const write = guest.kernelWrite(4, 44);
    await faults.reported(3);
    await faults.reported(4);
    memory.install(3, page(33));
    memory.install(4, page(1));
    assert.equal(await read, 33);
    await write;
    assert.equal(await guest.read(4), 44);
  });

  it("leaves nothing registered and nothing allocated but what was installed or touched", async (test) => {
    const guest = await startGuest(test);
    const memory = openMemory(test, guest);
    const child: FillableMemory = memory.fillable();
    assert.equal(memory.registration(), undefined);
    child.fill(() => {});
    assert.equal(memory.registration(), "missing");
    child.install(0, Buffer.alloc(8 * PAGE_BYTES, 1));
    memory.tracked().read({ first: 0, count: PAGE_COUNT }, Buffer.alloc(PAGE_COUNT * PAGE_BYTES));
    child.release();
    assert.equal(memory.registration(), undefined);
    assert.equal(allocatedBytes(guest.ramPath), 8 * PAGE_BYTES);
    assert.equal(await guest.read(8), 0);
  });

  it("can be a parent's once it has been filled", async (test) => {
    const guest = await startGuest(test);
    const memory = openMemory(test, guest);
    memory.fillable().fill(() => {});
    memory.fillable().install(0, page(1));
    memory.tracked().release(); // not the parent's to release
    assert.equal(memory.registration(), "missing");
    memory.fillable().release();

    const faults = new FaultLog();
    memory.tracked().track(faults.report);
    memory.tracked().protect({ first: 0, count: PAGE_COUNT });
    assert.equal(memory.registration(), "write-protect");
    const write = guest.write(0, 2);
    await faults.reported(0);
    memory.tracked().release();
    await write;
    assert.equal(memory.registration(), undefined);
  });

  it("says that the host has no room", async (test) => {
    const directory = mkdtempSync(join(tmpdir(), "ramet-test-"));
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${4 * PAGE_BYTES}`, "tmpfs", directory]);
    const guest = await MemoryStandIn.start({ pageCount: PAGE_COUNT, directory });
    const whole = GuestMemory.open({ pid: guest.pid, ramPath: guest.ramPath, log: silentLog });
    test.after(async () => {
      whole.close(); // its descriptor would keep the file system busy
      await guest.close();
      execFileSync("umount", [directory]);
      rmSync(directory, { recursive: true });
    });
    const memory = whole.fillable();
    memory.fill(() => {});
    assert.throws(() => memory.install(0, Buffer.alloc(8 * PAGE_BYTES, 1)), hasCode("no-memory"));
    assert.throws(() => memory.installZero({ first: 20, count: 1 }), hasCode("no-memory"));
    memory.release();
  });

  it("says that the emulator has ended, and can be released and closed then", async (test) => {
    const guest = await startGuest(test);
    const memory = openMemory(test, guest);
    memory.fillable().fill(() => {});
    await guest.kill();
    assert.throws(() => memory.fillable().install(0, page(1)), hasCode("gone"));
    assert.throws(() => memory.fillable().installZero({ first: 0, count: 1 }), hasCode("gone"));
    memory.fillable().wake({ first: 0, count: 1 });
    memory.fillable().release();
    assert.throws(() => memory.registration(), hasCode("gone"));
    assert.throws(() => memory.tracked().track(() => {}), hasCode("gone"));
    memory.close();
    memory.close();
  });
});

describe("a parent's memory", () => {
  it("holds up writes by the kernel, not reads", async (test) => {
    const guest = await startGuest(test);
    await guest.write(3, 30);
    const memory: TrackedMemory = openMemory(test, guest).tracked();
    const faults = new FaultLog();
    memory.track(faults.report);
    memory.protect({ first: 0, count: PAGE_COUNT });
    assert.equal(await guest.kernelRead(3), 30);
    const writes = [guest.kernelWrite(3, 31), guest.kernelWrite(50, 51)];
    await faults.reported(3);
    await faults.reported(50);
    const bytes = page(9);
    memory.read({ first: 3, count: 1 }, bytes);
    assert.deepEqual(bytes, page(30));
    memory.unprotect({ first: 3, count: 1 });
    memory.unprotect({ first: 50, count: 1 });
    await Promise.all(writes);
    assert.deepEqual([await guest.read(3), await guest.read(50)], [31, 51]);
  });

  it("reports more faults than fit into one read", async (test) => {
    const guest = await startGuest(test);
    const memory = openMemory(test, guest).tracked();
    const faults = new FaultLog();
    memory.track(faults.report);
    memory.protect({ first: 0, count: PAGE_COUNT });
    const writes = Array.from({ length: 600 }, (_, index) => guest.write(index % PAGE_COUNT, 1));
    for (let index = 0; index < PAGE_COUNT; index += 1) await faults.reported(index);
    memory.release();
    await Promise.all(writes);
  });

  it("outlives the emulator without harm", async (test) => {
    const guest = await startGuest(test);
    await guest.write(1, 1);
    const memory = openMemory(test, guest).tracked();
    memory.track(() => {});
    memory.protect({ first: 0, count: PAGE_COUNT });
    await guest.kill();
    assert.throws(() => memory.protect({ first: 0, count: 1 }), hasCode("gone"));
    memory.unprotect({ first: 0, count: 1 });
    const bytes = page(9);
    memory.read({ first: 1, count: 1 }, bytes);
    assert.deepEqual(bytes, page(1));
    memory.release();
  });
});

describe("finding an emulator's memory", () => {
  it("works on this kernel", () => checkKernel());

  it("does without the device where the emulator may make the system call", async (test) => {
    const guest = await startGuest(test, { device: "/dev/null" });
    openMemory(test, guest)
      .fillable()
      .fill(() => {});
  });

  it("leaves no mark in the emulator's environment", async (test) => {
    assert.equal(await (await startGuest(test)).isMarked(), false);
  });

  it("names what is wrong", async (test) => {
    const guest = await startGuest(test);
    const bare = await startGuest(test, { preload: false });
    const other = createRamFile(1);
    const empty = createRamFile(0);
    test.after(() => [other, empty].forEach((path) => rmSync(path)));
    const open = (pid: number, ramPath: string) => () => GuestMemory.open({ pid, ramPath, log: silentLog });
    assert.throws(open(bare.pid, bare.ramPath), hasCode("no-userfaultfd"));
    assert.throws(open(guest.pid, other), hasCode("not-mapped"));
    assert.throws(open(guest.pid, empty), hasCode("bad-file"));
    assert.throws(open(guest.pid, "/dev/shm/ramet-test-none"), hasCode("bad-file"));
    await guest.kill();
    assert.throws(open(guest.pid, guest.ramPath), hasCode("gone"));
  });
});
