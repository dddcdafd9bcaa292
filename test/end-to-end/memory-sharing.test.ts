import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { describe, it, type TestContext } from "node:test";
import { PAGE_BYTES, realClock, silentLog } from "../../src/base/index.js";
import { GuestMemory } from "../../src/memory/index.js";
import { digestMemory, SharedMemory, type PageDigests, type Sharing } from "../../src/transfer/index.js";
import { MemoryStandIn } from "../support/memory-stand-in.js";

const PAGE_COUNT = 1024;

async function startParent(test: TestContext) {
  const process = await MemoryStandIn.start({ pageCount: PAGE_COUNT });
  test.after(() => process.close());
  const memory = GuestMemory.open({ pid: process.pid, ramPath: process.ramPath, log: silentLog });
  test.after(() => memory.close());
  const shared = new SharedMemory({ memory: memory.tracked(), clock: realClock, log: silentLog });
  return { process, memory, shared };
}

type Parent = Awaited<ReturnType<typeof startParent>>;

async function startChild(test: TestContext, parent: Parent) {
  const process = await MemoryStandIn.startPrivate(parent.process, PAGE_COUNT);
  test.after(() => process.kill());
  const memory = GuestMemory.openPrivate({ pid: process.pid, file: parent.memory.file, log: silentLog });
  test.after(() => memory.close());
  const mapping = memory.private;
  assert.ok(mapping !== undefined);
  return { process, memory, mapping };
}

/** The instant: nobody writes meanwhile. */
async function instantOf(parent: Parent): Promise<PageDigests> {
  parent.shared.track(() => assert.fail("no transfer is under way"));
  parent.shared.protect({ first: 0, count: PAGE_COUNT });
  return digestMemory(parent.memory.tracked(), realClock);
}

async function assertSees(
  child: Awaited<ReturnType<typeof startChild>>,
  digests: PageDigests,
  but: readonly number[] = [],
): Promise<void> {
  const seen = await digestMemory(child.mapping, realClock);
  assert.deepEqual(seen.differences(digests), but);
}

describe("memory that children have mapped privately", () => {
  it("gives each page to the children before the parent writes it, holes and the children's own pages included", async (test) => {
    const parent = await startParent(test);
    for (let page = 0; page < 64; page += 2) await parent.process.write(page, page);
    const children = [await startChild(test, parent), await startChild(test, parent)] as const;
    const digests = await instantOf(parent);
    for (const { mapping } of children) parent.shared.join(mapping, () => assert.fail("there is room"));
    parent.shared.release();
    await children[0].process.write(6, 99);
    for (const page of [2, 3, 6, 7, 1000]) await parent.process.write(page, 200);
    assert.equal(await children[0].process.read(6), 99);
    assert.equal(await children[1].process.read(6), 6);
    assert.deepEqual(
      await Promise.all([2, 3, 7, 1000].map((page) => children[0].process.read(page))),
      [2, 0, 0, 0],
    );
    await assertSees(children[0], digests, [6]);
    await assertSees(children[1], digests);
  });

  it("keeps what several children of several instants were given, under a parent that writes hard", async (test) => {
    const parent = await startParent(test);
    for (let page = 0; page < PAGE_COUNT; page += 3) await parent.process.write(page, page % 251);
    const sharings: Sharing[] = [];
    const family = [];
    for (let instant = 0; instant < 3; instant += 1) {
      const born = [await startChild(test, parent), await startChild(test, parent)];
      const digests = await instantOf(parent);
      for (const child of born) {
        sharings.push(parent.shared.join(child.mapping, () => assert.fail("there is room")));
        family.push({ child, digests });
      }
      parent.shared.release();
      // Half of the memory, so that some stays shared; three at a time and one second each.
      await Promise.all([1, 2, 3].map(() => parent.process.storm(PAGE_COUNT / 2, 1)));
      for (const { child, digests: was } of family) await assertSees(child, was);
    }
    assert.ok(
      parent.shared.counters.separated >= (PAGE_COUNT / 2) * 6,
      "every page that was written was separated",
    );
    assert.ok(sharings.every(({ sharedPages }) => sharedPages === PAGE_COUNT / 2));
    for (const sharing of sharings) sharing.leave();
    assert.equal(parent.memory.registration(), undefined);
    await parent.process.write(1023, 1);
  });

  it("takes no room for what neither has written", async (test) => {
    const parent = await startParent(test);
    for (let page = 0; page < PAGE_COUNT; page += 1) await parent.process.write(page, 1);
    const child = await startChild(test, parent);
    const digests = await instantOf(parent);
    const sharing = parent.shared.join(child.mapping, () => {});
    parent.shared.release();
    for (let page = 0; page < PAGE_COUNT; page += 1) assert.equal(await child.process.read(page), 1);
    assert.equal(child.mapping.ownPages, 0);
    assert.equal(statSync(parent.process.ramPath).blocks * 512, PAGE_COUNT * PAGE_BYTES);
    await parent.process.write(40, 2);
    assert.equal(sharing.sharedPages, PAGE_COUNT - 16);
    assert.equal(child.mapping.ownPages, 16);
    await assertSees(child, digests);
    sharing.leave();
  });

  it("lets the parent's writer through at once when a child has ended, told or not", async (test) => {
    const parent = await startParent(test);
    const child = await startChild(test, parent);
    await instantOf(parent);
    const sharing = parent.shared.join(child.mapping, () => assert.fail("it has ended, and lacks nothing"));
    parent.shared.release();
    await child.process.kill();
    await parent.process.write(7, 1);
    assert.equal(sharing.sharedPages, PAGE_COUNT - 16);
    sharing.leave();
  });

  it("holds up the parent's writer for as long as a child lives that could not be given its page", async (test) => {
    const parent = await startParent(test);
    const child = await startChild(test, parent);
    await instantOf(parent);
    let failed = 0;
    const refusing = { separate: () => false };
    const sharing = parent.shared.join(refusing, () => (failed += 1));
    parent.shared.release();
    let written = false;
    const write = parent.process.write(9, 9).then(() => (written = true));
    while (failed === 0) await new Promise((resolve) => setImmediate(resolve));
    await child.process.read(9);
    assert.equal(written, false);
    assert.equal(await parent.process.read(9), 0);
    sharing.leave();
    await write;
    assert.equal(failed, 1);
  });

  it("a new agent finds in the parent's protection what children share", async (test) => {
    const parent = await startParent(test);
    const child = await startChild(test, parent);
    const digests = await instantOf(parent);
    parent.shared.join(child.mapping, () => assert.fail("there is room"));
    parent.shared.release();
    await parent.process.write(5, 5);
    parent.shared.detach();
    parent.memory.close();
    const write = parent.process.write(500, 5);
    const memory = GuestMemory.open({
      pid: parent.process.pid,
      ramPath: parent.process.ramPath,
      log: silentLog,
    });
    test.after(() => memory.close());
    const shared = new SharedMemory({ memory: memory.tracked(), clock: realClock, log: silentLog });
    const sharing = shared.rejoin(child.mapping, () => assert.fail("there is room"));
    assert.equal(sharing.sharedPages, PAGE_COUNT - 16);
    shared.goOn();
    await write;
    await assertSees(child, digests);
    sharing.leave();
    assert.equal(memory.registration(), undefined);
  });

  it("of a child that has ended lacks nothing, and cannot be read", async (test) => {
    const parent = await startParent(test);
    const child = await startChild(test, parent);
    assert.ok(child.mapping.separate({ first: 0, count: 1 }));
    await child.process.kill();
    assert.ok(child.mapping.separate({ first: 1, count: 1 }));
    assert.throws(() => child.mapping.read({ first: 0, count: 1 }, new Uint8Array(PAGE_BYTES)), {
      code: "gone",
    });
  });
});
