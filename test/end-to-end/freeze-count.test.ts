/** What it takes to freeze a guest's disks, counted: it does not grow with the disk, nor with what was written to it. */
import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { chainOf } from "../support/disk-rows.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { MIB } from "../support/images.js";
import { runSample } from "../support/sample-guest.js";

const GUESTS = [
  { name: "small", sizeBytes: 16 * MIB, writtenMib: 1 },
  { name: "large", sizeBytes: 64 * 1024 * MIB, writtenMib: 48 },
] as const;
const ROUNDS = 3;
/** An emulator's clocks, console and answers are not the same from one time to the next. */
const SLACK_BYTES = 64 * 1024;
const BLOCK_BYTES = 512;

describe("freezing a guest's disks", () => {
  let hosts: Hosts;
  let a: Host;
  before(async () => {
    hosts = await Hosts.start(1, { configuration: { limits: { memoryMib: 1024 } } });
    a = hosts.at(0);
    for (const { name, sizeBytes, writtenMib } of GUESTS) {
      await runSample(a, { name, memoryMiB: 128, disks: [{ sizeBytes }] });
      await inConsole(
        name,
        `dd if=/dev/urandom of=/dev/vda bs=1M count=${writtenMib} conv=fsync 2>/dev/null`,
      );
    }
  });
  after(() => hosts.stop());

  async function inConsole(name: string, command: string): Promise<void> {
    const { console: at } = await a.call("guest.console.open", { name });
    await a.call("guest.console.input", {
      console: at,
      data: Buffer.from(`${command}; echo done $((6*7))\n`),
    });
    const logs = async () => (await a.call("guest.logs", { name, source: "console", lines: 50 })).lines;
    await eventually(
      `${name} has written`,
      async () => (await logs()).join("\n").includes("done 42"),
      60_000,
    );
    await a.call("guest.console.close", { console: at });
  }

  /** All that a process has read and written so far, of files, sockets and pipes. */
  function movedBytes(pid = 0): number {
    const said = readFileSync(`/proc/${pid}/io`, "utf8");
    const of = (what: string) => Number(new RegExp(`^${what}: (\\d+)$`, "m").exec(said)?.[1] ?? NaN);
    return of("rchar") + of("wchar");
  }

  /** What one freeze has the emulator move, and what the new layer takes of the host's disk. */
  async function freeze(name: string): Promise<{ movedBytes: number; layerBytes: number }> {
    const { pid } = (await a.call("guest.show", { name })).guest;
    const before = movedBytes(pid);
    await a.call("guest.freeze", { name });
    const moved = movedBytes(pid) - before;
    const [top] = await chainOf(a, name);
    const { blocks } = statSync(join(a.stateDirectory, "disks", top?.id ?? "", "disk.qcow2"));
    await a.call("guest.thaw", { name });
    return { movedBytes: moved, layerBytes: blocks * BLOCK_BYTES };
  }

  test("moves as much and takes as much room for a large disk as for a small one", async (context) => {
    for (let round = 0; round < ROUNDS; round += 1) {
      const [small, large] = [await freeze("small"), await freeze("large")];
      context.diagnostic(
        `round ${round + 1}: small ${JSON.stringify(small)}, large ${JSON.stringify(large)}`,
      );
      assert.ok(small.movedBytes > 0, "it is counted");
      assert.ok(Math.abs(large.movedBytes - small.movedBytes) <= SLACK_BYTES, "what is moved does not grow");
      assert.ok(large.layerBytes <= small.layerBytes + SLACK_BYTES, "what a layer takes does not grow");
      assert.ok(large.movedBytes < MIB / 2, `${large.movedBytes} bytes for a disk with 48 MiB in it`);
    }
  });
});
