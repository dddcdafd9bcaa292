import assert from "node:assert/strict";
import { test } from "node:test";
import { CALM_FRAME_PAGES, SeededRandom } from "../../../src/base/index.js";
import { BulkFlow, type TransferPriority } from "../../../src/transfer/bulk-flow.js";
import { Scheduler } from "../../support/simulation/scheduler.js";

const FRAME_BYTES = 64 * 1024;
const FRAME = { kind: "done" } as const;

function flow(options: { rateBytesPerSecond?: number } = {}) {
  const clock = new Scheduler(new SeededRandom(1));
  let nowUs = 0;
  clock.nowUs = () => nowUs;
  return {
    flow: new BulkFlow(clock, { compress: false, ...options }),
    pass: (us: number) => void (nowUs += us),
  };
}

test("a rate limit spaces frames, and the network stack's backlog holds them up", () => {
  const { flow: limited, pass } = flow({ rateBytesPerSecond: FRAME_BYTES * 10 });
  assert.equal(limited.waitMs(0), 0);
  limited.sent(FRAME, FRAME_BYTES);
  assert.equal(limited.waitMs(0), 100);
  pass(99_500);
  assert.equal(limited.waitMs(0), 1);
  pass(500);
  assert.equal(limited.waitMs(0), 0);
  assert.equal(limited.waitMs(2 ** 20 + 1), 1);
});

test("while a child starts nothing goes, for a time or until it runs, whatever the rate", () => {
  const { flow: quiet, pass } = flow();
  quiet.quiet(5);
  assert.equal(quiet.waitMs(0), 5);
  quiet.change({ rateBytesPerSecond: 1024 });
  assert.equal(quiet.waitMs(0), 5);
  pass(4000);
  assert.equal(quiet.waitMs(0), 1);
  pass(1000);
  assert.equal(quiet.waitMs(0), 0);
  quiet.quiet(5);
  quiet.quiet(0);
  assert.equal(quiet.waitMs(0), 0);
});

test("a rate is changed at once: nobody waits for what the old one asked", () => {
  const { flow: changed } = flow({ rateBytesPerSecond: 1024 });
  changed.sent(FRAME, FRAME_BYTES);
  assert.equal(changed.waitMs(0), 64_000);
  changed.change({ priority: "low" });
  assert.equal(changed.waitMs(0), 64_000, "what is not named stays");
  changed.change({ rateBytesPerSecond: 1024 * 1024 });
  assert.equal(changed.waitMs(0), 63);
  changed.change({ rateBytesPerSecond: undefined });
  assert.equal(changed.waitMs(0), 0);
  changed.sent(FRAME, FRAME_BYTES);
  changed.change({ rateBytesPerSecond: 1024 });
  assert.equal(changed.waitMs(0), 0, "what was sent without a limit is not held against the limit");
});

test("what goes with an answer is what the link carries in a millisecond, and no more than the rate limit lets", () => {
  const rateBytesPerSecond = 100 * 1024 * 1024;
  const { flow: limited, pass } = flow({ rateBytesPerSecond });
  assert.equal(limited.aroundPages, 0, "nothing is known of the link");
  // A GiB each second.
  for (let frame = 0; frame < 100; frame += 1) {
    limited.sent(FRAME, FRAME_BYTES);
    pass(61);
    limited.credited(FRAME_BYTES);
  }
  pass(1e6);
  limited.credited(0);
  assert.equal(limited.aroundPages, 16, "25 pages a millisecond are let");
  limited.answered(2 * 1024 * 1024);
  assert.equal(limited.aroundPages, 0, "it is 20 ms ahead");
  pass(11_000);
  limited.credited(0);
  assert.equal(limited.aroundPages, 16);
  limited.change({ rateBytesPerSecond: undefined });
  assert.equal(limited.aroundPages, 64);
});

/** Bytes that transfers of these priorities get over one link of 1 Gbit/s in a second, each with as much to send as it may. */
function shareLink(priorities: TransferPriority[]): number[] {
  const clock = new Scheduler(new SeededRandom(1));
  let nowUs = 0;
  clock.nowUs = () => nowUs;
  const flows = priorities.map((priority) => new BulkFlow(clock, { priority, compress: false }));
  const carried = flows.map(() => 0);
  const queue: number[] = [];
  let busyUntilUs = 0;
  for (; nowUs < 1e6; nowUs += 10) {
    while (queue.length > 0 && busyUntilUs <= nowUs) {
      const index = queue.shift() as number;
      busyUntilUs += FRAME_BYTES / 125;
      carried[index] = (carried[index] as number) + FRAME_BYTES;
      assert.ok(flows[index]?.credited(FRAME_BYTES));
    }
    if (queue.length === 0) busyUntilUs = Math.max(busyUntilUs, nowUs);
    for (const [index, one] of flows.entries()) {
      for (let frames = one.takeTurn(); frames > 0 && one.open; frames -= 1) {
        one.sent(FRAME, FRAME_BYTES);
        queue.push(index);
      }
    }
  }
  return carried;
}

test("transfers share a link as their priorities say, and a low one alone has all of it", () => {
  const [high = 0, normal = 0, low = 0] = shareLink(["high", "normal", "low"]);
  assert.ok(high > 1.5 * normal && normal > 1.5 * low && low > 0, `${high}, ${normal}, ${low}`);
  const [one = 0, other = 0] = shareLink(["normal", "normal"]);
  assert.ok(Math.abs(one - other) <= 0.1 * one, `${one}, ${other}`);
  const [alone = 0] = shareLink(["low"]);
  assert.ok(alone > 0.95 * 125e6, `${alone}`);
});

test("a frame of the sweep is long while nobody waits, and a share of the window while somebody does", () => {
  const { flow: asked } = flow();
  assert.equal(asked.sweepPages, CALM_FRAME_PAGES);
  asked.urgent();
  assert.equal(asked.sweepPages, 32, "a quarter of 512 KiB");
});
