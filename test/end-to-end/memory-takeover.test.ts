import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface, type Interface } from "node:readline";
import { describe, it, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { PAGE_BYTES, realClock, silentLog, sleep, withDeadline } from "../../src/base/index.js";
import { GuestMemory } from "../../src/memory/index.js";
import { FaultLog } from "../support/memory-faults.js";
import { MemoryStandIn } from "../support/memory-stand-in.js";

const PAGE_COUNT = 64;
const DEADLINE_MS = 20_000;
const AGENT = fileURLToPath(new URL("../support/memory-agent.ts", import.meta.url));
const page = (value: number): Buffer => Buffer.alloc(PAGE_BYTES, value);

/** An agent in a process of its own, to be killed while it holds faults it has read. */
class DoomedAgent {
  readonly #process: ChildProcess;
  readonly #lines: Interface;
  readonly #seen = new Set<string>();

  constructor(test: TestContext, mode: "fill" | "track", guest: MemoryStandIn) {
    const parameters = ["--import", "tsx", AGENT, mode, String(guest.pid), guest.ramPath];
    this.#process = spawn(process.execPath, parameters, { stdio: ["ignore", "pipe", "inherit"] });
    test.after(() => this.#process.kill("SIGKILL"));
    this.#lines = createInterface({ input: this.#process.stdout as NodeJS.ReadableStream });
    this.#lines.on("line", (line) => this.#seen.add(line));
  }

  /** Resolves when the agent has printed a line. */
  async printed(line: string): Promise<void> {
    while (!this.#seen.has(line)) {
      await withDeadline(realClock, DEADLINE_MS, `the agent's line ${line}`, once(this.#lines, "line"));
    }
  }

  async kill(): Promise<void> {
    const exited = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await exited;
  }
}

/** Resolves when so many faults wait to be served, read by an agent or not, as the descriptor itself counts them. */
async function waitingFaults(pid: number, count: number): Promise<void> {
  const total = (): string =>
    readFileSync(`/proc/${pid}/fdinfo/200`, "utf8").match(/^total:\s+(\d+)$/m)?.[1] ?? "";
  const enough = async (): Promise<void> => {
    while (Number(total()) < count) await sleep(realClock, 5);
  };
  await withDeadline(realClock, DEADLINE_MS, `${count} faults waiting`, enough());
}

async function startGuest(test: TestContext): Promise<MemoryStandIn> {
  const guest = await MemoryStandIn.start({ pageCount: PAGE_COUNT });
  test.after(() => guest.close());
  return guest;
}

function adopt(test: TestContext, guest: MemoryStandIn): GuestMemory {
  const memory = GuestMemory.open({ pid: guest.pid, ramPath: guest.ramPath, log: silentLog });
  test.after(() => memory.close());
  return memory;
}

describe("an agent that is killed", () => {
  it("leaves a child waiting, and the next agent serves it", async (test) => {
    const guest = await startGuest(test);
    const agent = new DoomedAgent(test, "fill", guest);
    await agent.printed("ready");
    const before = guest.read(7); // its event is read by the agent and dies with it
    await agent.printed("7");
    await agent.kill();
    const between = guest.read(8); // its event is read by nobody
    await waitingFaults(guest.pid, 2);

    const memory = adopt(test, guest);
    assert.equal(memory.registration(), "missing");
    const faults = new FaultLog();
    memory.fillable().fill(faults.report);
    await faults.reported(7);
    await faults.reported(8);
    memory.fillable().install(7, Buffer.concat([page(77), page(88)]));
    assert.deepEqual(await Promise.all([before, between]), [77, 88]);
    memory.fillable().release();
    assert.equal(memory.registration(), undefined);
  });

  it("leaves a parent's writers waiting, and the next agent lets them go", async (test) => {
    const guest = await startGuest(test);
    await guest.write(7, 1);
    const agent = new DoomedAgent(test, "track", guest);
    await agent.printed("ready");
    const before = guest.write(7, 2);
    await agent.printed("7");
    await agent.kill();
    const between = guest.write(8, 2);
    await waitingFaults(guest.pid, 2);

    const memory = adopt(test, guest);
    assert.equal(memory.registration(), "write-protect");
    const bytes = page(9);
    memory.tracked().read({ first: 7, count: 1 }, bytes);
    assert.deepEqual(bytes, page(1));
    memory.tracked().release();
    await Promise.all([before, between]);
    assert.deepEqual([await guest.read(7), await guest.read(8)], [2, 2]);
    assert.equal(memory.registration(), undefined);
  });

  it("leaves pages protected, and the next agent knows which, holes and pages nobody had touched included", async (test) => {
    const guest = await startGuest(test);
    await guest.write(3, 1);
    const agent = new DoomedAgent(test, "track", guest);
    await agent.printed("ready");
    const waiting = guest.write(3, 2);
    await agent.printed("3");
    await agent.kill();

    const memory = adopt(test, guest).tracked();
    memory.track(new FaultLog().report);
    assert.equal(memory.protectedPages().count, PAGE_COUNT);
    memory.unprotect({ first: 3, count: 2 });
    await waiting;
    const left = memory.protectedPages();
    assert.deepEqual(
      [...left.runs()],
      [
        { first: 0, count: 3 },
        { first: 5, count: PAGE_COUNT - 5 },
      ],
    );
    memory.protect({ first: 4, count: 1 });
    assert.deepEqual([...memory.protectedPages().runs()].at(-1), { first: 4, count: PAGE_COUNT - 4 });
    memory.release();
    assert.equal(memory.protectedPages().count, 0);
  });

  it("may be replaced while it still runs, without the guest being released", async (test) => {
    const guest = await startGuest(test);
    const first = adopt(test, guest);
    const faults = new FaultLog();
    first.fillable().fill(faults.report);
    const read = guest.read(1);
    await faults.reported(1);
    first.close();
    const second = adopt(test, guest);
    const later = new FaultLog();
    second.fillable().fill(later.report);
    await later.reported(1);
    second.fillable().install(1, page(11));
    assert.equal(await read, 11);
  });
});
