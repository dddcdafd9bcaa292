import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Borrowings } from "../../../src/agent/disks/borrowings.js";
import { deferred, realClock, silentLog } from "../../../src/base/index.js";
import { RemoteError } from "../../../src/control/index.js";
import type { DiskArrival } from "../../../src/disk/index.js";

const DISK = "11111111-2222-4333-8444-555555555555";
const arrivalOf = (transfer: number): DiskArrival => ({
  transfer,
  holder: { kind: "certificate", name: "a" },
  url: "wss://a:1",
  host: "a",
});

describe("disks that other hosts keep for this one", () => {
  let directory: string;
  before(() => (directory = mkdtempSync(join(tmpdir(), "rb-"))));
  after(() => rmSync(directory, { recursive: true }));

  const told: number[] = [];
  const open = (tell: (arrival: DiskArrival) => Promise<void>): Borrowings =>
    new Borrowings({ directory, tell, clock: realClock, log: silentLog });
  const hears = (arrival: DiskArrival): Promise<void> => {
    told.push(arrival.transfer);
    return Promise.resolve();
  };

  test("are given back by the next agent, where the one that borrowed them ended before it could", async () => {
    const asked = deferred<void>();
    const first = open(() => {
      asked.resolve();
      return Promise.reject(new Error("nobody answers there"));
    });
    for (const transfer of [1, 2]) await first.note(arrivalOf(transfer), DISK);
    void first.giveBack(arrivalOf(1), DISK);
    await asked.promise;
    first.close();
    assert.equal(readdirSync(directory).length, 2);
    const next = open(hears);
    await next.goOn((disk, { transfer }) => disk === DISK && transfer === 2);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(told, [1], "what is awaited is kept");
    await next.giveBack(arrivalOf(2), DISK);
    assert.deepEqual([told, readdirSync(directory)], [[1, 2], []]);
    next.close();
  });

  test("are let go of when their host says that it keeps none such", async () => {
    const borrowings = open(() => Promise.reject(new RemoteError("refused", "who are you")));
    await borrowings.note(arrivalOf(3), DISK);
    await borrowings.giveBack(arrivalOf(3), DISK);
    assert.deepEqual(readdirSync(directory), []);
    borrowings.close();
  });

  test("are not lost for a note that cannot be read", async () => {
    const borrowings = open(hears);
    writeFileSync(join(directory, "bad.json"), "{");
    writeFileSync(join(directory, "x.0011.unfinished"), "");
    await borrowings.note(arrivalOf(4), DISK);
    await borrowings.goOn(() => false);
    await borrowings.giveBack(arrivalOf(4), DISK);
    assert.deepEqual(readdirSync(directory), ["bad.json"]);
    borrowings.close();
  });

  test("are none where nothing was ever borrowed", async () => {
    rmSync(directory, { recursive: true });
    await open(hears).goOn(() => false);
    await open(hears).note(arrivalOf(5), DISK);
    assert.equal(readdirSync(directory).length, 1);
  });
});
