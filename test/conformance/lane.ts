import assert from "node:assert/strict";
import { test } from "node:test";
import type { FrameLane, LaneEnd } from "../../src/transfer/index.js";

/** Both ends of one lane, and the hands of whoever tests it. */
export interface LanePair {
  child: FrameLane;
  parent: FrameLane;
  /** Breaks the connection between them, without a word. */
  break(): void;
  /** Lets time pass until the condition holds; fails when it never does. */
  until(what: string, condition: () => boolean): Promise<void>;
  /** Lets everything arrive that is on its way. */
  settle(): Promise<void>;
  /** Frees everything. */
  dispose(): Promise<void>;
}

type Side = "child" | "parent";

const SIDES: readonly { from: Side; to: Side }[] = [
  { from: "child", to: "parent" },
  { from: "parent", to: "child" },
];

const END: LaneEnd = { code: "cancelled", message: "the user cancelled the transfer", fatal: true };

class Owner {
  readonly frames: Uint8Array[] = [];
  readonly ends: LaneEnd[] = [];
  readonly #onFrame: ((frame: Uint8Array) => void) | undefined;

  constructor(lane: FrameLane, onFrame?: (frame: Uint8Array) => void) {
    this.#onFrame = onFrame;
    lane.attach({
      onFrame: (frame) => {
        assert.deepEqual(this.ends, [], "no frame comes after the end");
        this.frames.push(Uint8Array.from(frame));
        this.#onFrame?.(frame);
      },
      onEnd: (end) => this.ends.push(end),
    });
  }
}

const frameOf = (value: number, sizeBytes = 24) => new Uint8Array(sizeBytes).fill(value);

/** What the transfer room relies on in every kind of lane: run for each with a factory. */
export function laneConformance(name: string, open: () => Promise<LanePair>): void {
  const laneTest = (title: string, body: (pair: LanePair) => Promise<void>): void => {
    test(`${name}: ${title}`, async () => {
      const pair = await open();
      try {
        await body(pair);
      } finally {
        await pair.dispose();
      }
    });
  };
  framesConform(laneTest);
  endsConform(laneTest);
}

type LaneTest = (title: string, body: (pair: LanePair) => Promise<void>) => void;

function framesConform(laneTest: LaneTest): void {
  for (const { from, to } of SIDES) {
    laneTest(`frames arrive whole and in order from ${from} to ${to}`, async (pair) => {
      const owner = new Owner(pair[to]);
      new Owner(pair[from]);
      const sizes = [16, 24, 1, 125, 126, 65535, 65536, 70000, 1024 * 1024, 16];
      sizes.forEach((sizeBytes, index) => pair[from].send(frameOf(index + 1, sizeBytes)));
      await pair.until("all frames", () => owner.frames.length === sizes.length);
      sizes.forEach((sizeBytes, index) =>
        assert.deepEqual(owner.frames[index], frameOf(index + 1, sizeBytes)),
      );
      await pair.until("an empty queue", () => pair[from].queuedBytes === 0);
    });

    laneTest(`frames from ${from} that come before ${to} attaches are delivered then`, async (pair) => {
      new Owner(pair[from]);
      for (let value = 1; value <= 100; value += 1) pair[from].send(frameOf(value));
      await pair.settle();
      const owner = new Owner(pair[to]);
      await pair.until("all frames", () => owner.frames.length === 100);
      owner.frames.forEach((frame, index) => assert.deepEqual(frame, frameOf(index + 1)));
    });

    laneTest(`a long frame from ${from}, begun before ${to} attaches, is delivered once`, async (pair) => {
      new Owner(pair[from]);
      const sizes = [24, 70_000, 1024 * 1024, 24];
      sizes.forEach((sizeBytes, index) => pair[from].send(frameOf(index + 1, sizeBytes)));
      await pair.settle();
      const owner = new Owner(pair[to]);
      await pair.until("all frames", () => owner.frames.length >= sizes.length);
      await pair.settle();
      assert.deepEqual(
        owner.frames.map(({ length }) => length),
        sizes,
      );
      owner.frames.forEach((frame, index) => assert.ok(frame.every((byte) => byte === index + 1)));
    });
  }

  laneTest("both directions at once", async (pair) => {
    const child = new Owner(pair.child);
    const parent = new Owner(pair.parent, (frame) => pair.parent.send(Uint8Array.from(frame)));
    for (let value = 0; value < 200; value += 1) pair.child.send(frameOf(value, 4000));
    await pair.until("all echoes", () => child.frames.length === 200);
    assert.deepEqual(child.frames, parent.frames);
  });
}

function endsConform(laneTest: LaneTest): void {
  for (const { from, to } of SIDES) {
    laneTest(`${to} is told once why ${from} closed, after all its frames`, async (pair) => {
      const closer = new Owner(pair[from]);
      const other = new Owner(pair[to]);
      for (let value = 0; value < 50; value += 1) pair[from].send(frameOf(value, 10000));
      pair[from].close(END);
      pair[from].close({ ...END, code: "again" });
      pair[from].send(frameOf(99));
      await pair.until("the end", () => other.ends.length > 0);
      await pair.settle();
      assert.equal(other.frames.length, 50);
      assert.deepEqual(other.ends, [END]);
      assert.deepEqual(closer.ends, []);
    });

    laneTest(`an end by ${from} before ${to} attaches is told then, after the frames`, async (pair) => {
      new Owner(pair[from]);
      pair[from].send(frameOf(1));
      pair[from].close({ ...END, fatal: false });
      await pair.settle();
      const other = new Owner(pair[to]);
      await pair.until("the end", () => other.ends.length > 0);
      assert.equal(other.frames.length, 1);
      assert.deepEqual(other.ends, [{ ...END, fatal: false }]);
    });

    laneTest(`nothing is told to ${to} after its own close`, async (pair) => {
      new Owner(pair[from]);
      const closer: Owner = new Owner(pair[to], () => pair[to].close(END));
      for (let value = 0; value < 20; value += 1) pair[from].send(frameOf(value));
      await pair.until("a frame", () => closer.frames.length > 0);
      for (let value = 0; value < 20; value += 1) pair[from].send(frameOf(value));
      await pair.settle();
      assert.equal(closer.frames.length, 1);
      assert.deepEqual(closer.ends, []);
    });
  }

  laneTest("both close at once and neither is told", async (pair) => {
    const owners = [new Owner(pair.child), new Owner(pair.parent)];
    pair.child.close(END);
    pair.parent.close(END);
    await pair.settle();
    for (const owner of owners) assert.deepEqual(owner.ends, []);
  });

  laneTest("a break is told to both, once, and is not fatal", async (pair) => {
    const owners = [new Owner(pair.child), new Owner(pair.parent)];
    pair.child.send(frameOf(1));
    pair.break();
    await pair.until("both ends", () => owners.every((owner) => owner.ends.length > 0));
    pair.child.send(frameOf(2));
    pair.parent.send(frameOf(2));
    await pair.settle();
    for (const owner of owners) {
      assert.equal(owner.ends.length, 1);
      assert.equal(owner.ends[0]?.fatal, false);
      assert.notEqual(owner.ends[0]?.code, "");
    }
    pair.child.close(END);
    pair.parent.close(END);
  });
}
