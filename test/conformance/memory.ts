/**
 * What every `TrackedMemory` and `FillableMemory` must do, be it userfaultfd over a process or arrays in a simulation.
 * That something waits is shown without clocks: it was reported, its effect is absent, and appears after it was served.
 */
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { PAGE_BYTES } from "../../src/base/index.js";
import type { FillableMemory, TrackedMemory } from "../../src/transfer/ports.js";
import { FaultLog } from "../support/memory-faults.js";

/** The guest's side: each call resolves when the access has gone through, and waits as long as the access waits. */
export interface GuestAccess {
  /** The value that all bytes of the page have. */
  read(page: number): Promise<number>;
  /** Gives all bytes of the page a value, 0..255. */
  write(page: number, value: number): Promise<void>;
}

/** A fresh memory of zeros with nothing allocated, of at least 64 pages. */
export interface MemorySubject<Memory> {
  memory: Memory;
  guest: GuestAccess;
  /** How many pages of the memory exist on the host. */
  allocatedPages(): number;
  /** Ends the subject; whatever still waits is abandoned. */
  close(): Promise<void>;
}

export type MemoryFactory<Memory> = () => Promise<MemorySubject<Memory>>;

const page = (value: number): Buffer => Buffer.alloc(PAGE_BYTES, value);

function valueOf(memory: TrackedMemory, index: number): number {
  const bytes = Buffer.alloc(PAGE_BYTES);
  memory.read({ first: index, count: 1 }, bytes);
  assert.deepEqual(bytes, page(bytes[0] as number), `page ${index} has one value`);
  return bytes[0] as number;
}

export function trackedMemoryConformance(name: string, create: MemoryFactory<TrackedMemory>): void {
  describe(`tracked memory: ${name}`, () => {
    let subject: MemorySubject<TrackedMemory>;
    let memory: TrackedMemory;
    let guest: GuestAccess;
    let faults: FaultLog;
    beforeEach(async () => {
      subject = await create();
      ({ memory, guest } = subject);
      faults = new FaultLog();
    });
    afterEach(() => subject.close());

    it("holds up nothing before pages are protected", async () => {
      memory.track(faults.report);
      await guest.write(1, 11);
      assert.equal(valueOf(memory, 1), 11);
      assert.deepEqual(faults.pages, []);
    });

    it("reports a write to a protected page and holds it up until the page is unprotected", async () => {
      await guest.write(5, 50);
      memory.track(faults.report);
      memory.protect({ first: 4, count: 4 });
      const write = guest.write(5, 51);
      await faults.reported(5);
      assert.equal(valueOf(memory, 5), 50);
      memory.unprotect({ first: 5, count: 1 });
      await write;
      assert.equal(valueOf(memory, 5), 51);
    });

    it("holds up writes to pages that do not exist yet", async () => {
      memory.track(faults.report);
      memory.protect({ first: 0, count: memory.pageCount });
      const write = guest.write(memory.pageCount - 1, 7);
      await faults.reported(memory.pageCount - 1);
      assert.equal(valueOf(memory, memory.pageCount - 1), 0);
      memory.unprotect({ first: memory.pageCount - 1, count: 1 });
      await write;
      assert.equal(valueOf(memory, memory.pageCount - 1), 7);
    });

    it("lets reads of protected pages through, and still holds up the writes after them", async () => {
      await guest.write(2, 20);
      memory.track(faults.report);
      memory.protect({ first: 2, count: 2 });
      assert.equal(await guest.read(2), 20);
      assert.equal(await guest.read(3), 0);
      assert.deepEqual(faults.pages, []);
      const writes = [guest.write(2, 21), guest.write(3, 31)];
      await faults.reported(2);
      await faults.reported(3);
      assert.deepEqual([valueOf(memory, 2), valueOf(memory, 3)], [20, 0]);
      memory.unprotect({ first: 2, count: 2 });
      await Promise.all(writes);
    });

    it("unprotects exactly the pages named", async () => {
      memory.track(faults.report);
      memory.protect({ first: 0, count: 32 });
      memory.unprotect({ first: 8, count: 8 });
      await guest.write(8, 8);
      await guest.write(15, 15);
      const held = [guest.write(7, 7), guest.write(16, 16)];
      await faults.reported(7);
      await faults.reported(16);
      assert.deepEqual(
        [7, 8, 15, 16].map((index) => valueOf(memory, index)),
        [0, 8, 15, 0],
      );
      memory.unprotect({ first: 0, count: 32 });
      await Promise.all(held);
    });

    it("holds up writes again after a page is protected again", async () => {
      memory.track(faults.report);
      memory.protect({ first: 3, count: 1 });
      memory.unprotect({ first: 3, count: 1 });
      await guest.write(3, 1);
      memory.protect({ first: 3, count: 1 });
      const write = guest.write(3, 2);
      await faults.reported(3);
      assert.equal(valueOf(memory, 3), 1);
      memory.unprotect({ first: 3, count: 1 });
      await write;
      assert.equal(valueOf(memory, 3), 2);
    });

    it("wakes every writer of a page at once", async () => {
      memory.track(faults.report);
      memory.protect({ first: 9, count: 1 });
      const writes = [guest.write(9, 1), guest.write(9, 1), guest.write(9, 1)];
      await faults.reported(9);
      memory.unprotect({ first: 9, count: 1 });
      await Promise.all(writes);
      assert.equal(valueOf(memory, 9), 1);
    });

    it("lets every writer go when it is released, reports nothing afterwards, and can be tracked anew", async () => {
      memory.track(faults.report);
      memory.protect({ first: 0, count: memory.pageCount });
      const writes = [guest.write(1, 1), guest.write(40, 40)];
      await faults.reported(1);
      await faults.reported(40);
      memory.release();
      memory.release();
      await Promise.all(writes);
      const reported = faults.pages.length;
      await guest.write(41, 41);
      assert.equal(faults.pages.length, reported);

      const later = new FaultLog();
      memory.track(later.report);
      await guest.write(40, 42);
      memory.protect({ first: 40, count: 1 });
      const write = guest.write(40, 43);
      await later.reported(40);
      memory.release();
      await write;
      assert.equal(faults.pages.length, reported);
    });

    it("protects aside all pages named, those that do not exist too", async () => {
      await guest.write(6, 60);
      memory.track(faults.report);
      const protecting = memory.protectAside({ first: 4, count: memory.pageCount - 4 });
      await guest.write(3, 30);
      await protecting;
      const held = [guest.write(6, 61), guest.write(memory.pageCount - 1, 1)];
      await faults.reported(6);
      await faults.reported(memory.pageCount - 1);
      assert.deepEqual([valueOf(memory, 3), valueOf(memory, 6)], [30, 60]);
      memory.unprotect({ first: 0, count: memory.pageCount });
      await Promise.all(held);
    });

    it("holds up nothing once it is released, though pages were being protected aside", async () => {
      memory.track(faults.report);
      const protecting = memory.protectAside({ first: 0, count: memory.pageCount });
      memory.release();
      await protecting;
      await guest.write(0, 1);
      await guest.write(memory.pageCount - 1, 1);
      assert.deepEqual(faults.pages, []);
      const later = new FaultLog();
      memory.track(later.report);
      await guest.write(5, 1);
      assert.deepEqual(later.pages, []);
      memory.release();
    });

    it("reads ranges, and holes without filling them", async () => {
      await guest.write(10, 1);
      await guest.write(12, 3);
      const before = subject.allocatedPages();
      memory.track(faults.report);
      const bytes = Buffer.alloc(4 * PAGE_BYTES, 255);
      memory.read({ first: 10, count: 3 }, bytes);
      assert.deepEqual(bytes, Buffer.concat([page(1), page(0), page(3), page(255)]));
      memory.read({ first: 20, count: 4 }, bytes);
      assert.deepEqual(bytes, Buffer.alloc(4 * PAGE_BYTES));
      assert.equal(subject.allocatedPages(), before);
    });

    it("finds what is not a hole", async () => {
      assert.equal(memory.nextData(0), undefined);
      for (const index of [3, 4, 9, memory.pageCount - 1]) await guest.write(index, 1);
      assert.deepEqual(memory.nextData(0), { first: 3, count: 2 });
      assert.deepEqual(memory.nextData(4), { first: 4, count: 1 });
      assert.deepEqual(memory.nextData(5), { first: 9, count: 1 });
      assert.deepEqual(memory.nextData(10), { first: memory.pageCount - 1, count: 1 });
      assert.equal(memory.nextData(memory.pageCount), undefined);
    });
  });
}

export function fillableMemoryConformance(name: string, create: MemoryFactory<FillableMemory>): void {
  describe(`fillable memory: ${name}`, () => {
    let subject: MemorySubject<FillableMemory>;
    let memory: FillableMemory;
    let guest: GuestAccess;
    let faults: FaultLog;
    beforeEach(async () => {
      subject = await create();
      ({ memory, guest } = subject);
      faults = new FaultLog();
      memory.fill(faults.report);
    });
    afterEach(() => subject.close());

    it("reports a read of a missing page and holds it up until the page is installed", async () => {
      const read = guest.read(5);
      await faults.reported(5);
      memory.install(5, page(55));
      assert.equal(await read, 55);
    });

    it("lets a write to a missing page happen on top of what is installed", async () => {
      const write = guest.write(6, 66);
      await faults.reported(6);
      memory.install(6, page(1));
      await write;
      assert.equal(await guest.read(6), 66);
    });

    it("installs runs of pages, which are never reported", async () => {
      memory.install(8, Buffer.concat([page(8), page(9), page(10), page(11)]));
      for (const index of [8, 9, 10, 11]) assert.equal(await guest.read(index), index);
      assert.deepEqual(faults.pages, []);
      assert.equal(subject.allocatedPages(), 4);
    });

    it("wakes everyone who waits for any page of a run", async () => {
      const reads = [20, 21, 23, 23].map((index) => guest.read(index));
      for (const index of [20, 21, 23]) await faults.reported(index);
      memory.install(20, Buffer.concat([page(20), page(21), page(22), page(23)]));
      assert.deepEqual(await Promise.all(reads), [20, 21, 23, 23]);
    });

    it("installs zero pages", async () => {
      const read = guest.read(30);
      await faults.reported(30);
      memory.installZero({ first: 28, count: 8 });
      assert.equal(await read, 0);
      assert.equal(await guest.read(35), 0);
      assert.deepEqual([...new Set(faults.pages)], [30]);
    });

    it("keeps what the guest has written to an installed page", async () => {
      memory.install(1, page(1));
      await guest.write(1, 2);
      memory.wake({ first: 1, count: 1 });
      assert.equal(await guest.read(1), 2);
    });

    it("installs the first and the last page", async () => {
      memory.install(0, page(1));
      memory.install(memory.pageCount - 1, page(2));
      assert.deepEqual([await guest.read(0), await guest.read(memory.pageCount - 1)], [1, 2]);
    });

    it("lets missing pages read as zeros after it is released, and wakes who waits for them", async () => {
      memory.install(2, page(2));
      const read = guest.read(3);
      await faults.reported(3);
      memory.release();
      memory.release();
      assert.equal(await read, 0);
      assert.deepEqual([await guest.read(2), await guest.read(4)], [2, 0]);
      assert.deepEqual([...new Set(faults.pages)], [3]);
    });
  });
}
