import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { after, before, describe, test } from "node:test";
import type { ExchangeOutcome } from "../../src/control/index.js";
import { eventually, emulatorsBelow, Hosts, type Host } from "../support/hosts.js";
import { missingNextEmulator, nextEmulator } from "../support/next-emulator.js";
import { ask, runSample } from "../support/sample-guest.js";

const PORT = 8280;
const MIB = 1024 * 1024;
const STAMPED_MIB = 32;
/** How often there and back. RAMET_EXCHANGE_ROUNDS=20 is the whole of it. */
const ROUNDS = Number(process.env["RAMET_EXCHANGE_ROUNDS"] ?? 2);

type Victim = "agent" | "old" | "new";
/** What can be seen of an exchange from outside, in turn. */
type Sight = "preparing" | "started" | "saving" | "told";

/** Who is killed, how long after what was seen. RAMET_EXCHANGE_KILLS=all plays each. */
const KILLINGS: readonly { victims: readonly Victim[]; at: Sight; ms: number; always?: true }[] = [
  { victims: ["agent"], at: "preparing", ms: 0 },
  { victims: ["agent"], at: "started", ms: 0 },
  { victims: ["agent"], at: "saving", ms: 0 },
  { victims: ["agent"], at: "saving", ms: 2 },
  { victims: ["agent"], at: "saving", ms: 5 },
  { victims: ["agent"], at: "told", ms: 0, always: true },
  { victims: ["agent"], at: "told", ms: 3 },
  { victims: ["agent"], at: "told", ms: 10 },
  { victims: ["new"], at: "started", ms: 0 },
  { victims: ["new"], at: "saving", ms: 0, always: true },
  { victims: ["agent", "new"], at: "saving", ms: 1, always: true },
  { victims: ["old"], at: "told", ms: 0 },
  { victims: ["agent", "old"], at: "told", ms: 0, always: true },
];
const SPIN_MS = 30_000;
const MAX_TRIES = 5;

interface Stamps {
  checked: number;
  bad: number;
}
interface Rows {
  committed: number;
  wrong: number;
  after: number;
  failures: number;
}

const skip = missingNextEmulator();
describe("a guest under load whose emulator is exchanged", { skip }, () => {
  let hosts: Hosts;
  let a: Host;
  const other = nextEmulator();
  before(async () => {
    hosts = await Hosts.start(1, { configuration: { emulators: [other], limits: { memoryMib: 2048 } } });
    a = hosts.at(0);
    await runSample(a, {
      name: "web",
      hostPort: PORT,
      memoryMiB: 512,
      cpus: 2,
      disks: [{ sizeBytes: 256 * MIB }],
    });
    await ask(a, PORT, `/stamp/start?mib=${STAMPED_MIB}&fill=page&rate=40&check=20`);
    await ask(a, PORT, "/disk/start?pause=1000");
  });
  after(() => hosts.stop());

  const exchange = (emulator?: string) =>
    a.call("guest.exchange", { name: "web", ...(emulator === undefined ? {} : { emulator }) });
  const rows = () => ask<Rows>(a, PORT, "/disk/status");
  const ramOf = async () => {
    const id = (await a.guests()).get("web")?.id ?? "";
    return statSync(join(a.memoryDirectory, id, "ram"));
  };

  /** What must hold after every exchange. */
  async function isWhole(
    outcome: ExchangeOutcome,
    before: { counter: number; boot_id: string },
  ): Promise<void> {
    const { guest, to, memory } = outcome;
    assert.deepEqual([guest.pid, guest.emulatorVersion, guest.state], [to.pid, to.version, "running"]);
    assert.ok(
      Math.abs(memory.allocatedAfterBytes - memory.allocatedBeforeBytes) <= MIB,
      JSON.stringify(memory),
    );
    const { counter, boot_id } = await ask(a, PORT);
    assert.deepEqual({ counter, boot_id }, { counter: before.counter + 1, boot_id: before.boot_id });
    const { committed } = await rows();
    await eventually("rows are committed", async () => (await rows()).committed > committed);
    assert.deepEqual(emulatorsBelow(a.stateDirectory), [to.pid], "one emulator has it");
    const left = readdirSync(join(a.memoryDirectory, guest.id));
    assert.deepEqual(
      left.filter((name) => /exchange|device-state/.test(name)),
      [],
    );
  }

  /** What the guest says of its own memory and disk, which it goes on writing afterwards. */
  async function isSound(): Promise<void> {
    const { wrong_pages } = await ask<{ wrong_pages: number }>(a, PORT, "/stamp/status");
    assert.equal(wrong_pages, 0);
    await ask(a, PORT, "/stamp/pace?rate=1");
    const { checked, bad } = await ask<Stamps>(a, PORT, "/stamp/verify?order=random");
    assert.deepEqual({ checked, bad }, { checked: STAMPED_MIB * 256, bad: 0 });
    await ask(a, PORT, "/stamp/pace?rate=40");
    await ask(a, PORT, "/disk/stop");
    const { wrong, after } = await ask<Rows>(a, PORT, "/disk/verify");
    assert.deepEqual(
      { wrong, after, failures: (await rows()).failures },
      { wrong: 0, after: 0, failures: 0 },
    );
    await ask(a, PORT, "/disk/start?pause=1000");
  }

  test("runs on, with its memory in place, its disk and its ports, there and back", async (context) => {
    const generation = await ask<{ changes: number }>(a, PORT, "/vmgenid");
    const { ino, dev } = await ramOf();
    const pauses: number[] = [];
    for (let round = 0; round < ROUNDS * 2; round += 1) {
      const before = await ask(a, PORT);
      const outcome = await exchange(round % 2 === 0 ? "10.0" : undefined);
      pauses.push(outcome.pauseUs);
      assert.match(outcome.to.version, round % 2 === 0 ? /^10\.0/ : /^7\./);
      await isWhole(outcome, before);
      if (round % 4 === 1) {
        await a.end("SIGKILL");
        await a.start();
        assert.equal((await a.guests()).get("web")?.pid, outcome.to.pid, "the next agent finds it");
      }
    }
    context.diagnostic(`pauses: ${pauses.map((us) => (us / 1000).toFixed(1)).join(", ")} ms`);
    const ram = await ramOf();
    assert.deepEqual([ram.ino, ram.dev], [ino, dev], "the memory is the same file");
    assert.equal((await ask<{ changes: number }>(a, PORT, "/vmgenid")).changes, generation.changes);
    await isSound();
    assert.deepEqual(hosts.problems, []);
  });

  /** Kills who is to be killed as soon as an exchange is seen to have come so far. @returns what its record said then. */
  async function killAt(
    id: string,
    over: { isOver: boolean },
    { victims, at, ms }: (typeof KILLINGS)[number],
  ): Promise<string> {
    const memory = join(a.memoryDirectory, id);
    const recordPath = join(memory, "exchange.json");
    const until = performance.now() + SPIN_MS;
    for (;;) {
      const record = readIfThere<{ step: string; to: string }>(recordPath);
      const pidOf = (seat: string) =>
        readIfThere<number>(join(a.stateDirectory, "guests", id, seat, "emulator.pid"));
      const next = record === undefined ? undefined : pidOf(record.to);
      const isSaving = readNames(memory).some((name) => name.includes("device-state"));
      const sights = {
        preparing: record !== undefined,
        started: next !== undefined,
        saving: record !== undefined && isSaving && next !== undefined,
        told: record?.step === "told",
      };
      // The new one is the guest's own by then, which would end with it.
      const isLate = sights.told && at !== "told" && victims.includes("new");
      if (record !== undefined && (sights[at] || sights.told) && !isLate) {
        const from = performance.now();
        while (performance.now() < from + ms);
        const pids = { agent: a.pid, new: next, old: pidOf(record.to === "run" ? "alt" : "run") };
        for (const victim of victims) kill(pids[victim]);
        return readIfThere<{ step: string }>(recordPath)?.step ?? "over";
      }
      if (over.isOver) return "not seen";
      assert.ok(performance.now() < until, "an exchange is seen");
      await turn();
    }
  }

  for (const killing of KILLINGS) {
    if (process.env["RAMET_EXCHANGE_KILLS"] !== "all" && killing.always !== true) continue;
    const { victims, at, ms } = killing;
    test(`${victims.join(" and ")} killed ${ms} ms after it was ${at}`, async (context) => {
      const guest = (await a.guests()).get("web");
      const first = await ask(a, PORT);
      const wanted = guest?.emulatorVersion?.startsWith("10") === true ? undefined : "10.0";
      let step = "not seen";
      let done: Promise<string> = Promise.resolve("");
      // On a busy machine one may be over before it was looked at.
      for (let tries = 0; tries < MAX_TRIES && step === "not seen"; tries += 1) {
        const over = { isOver: false };
        const killed = killAt(guest?.id ?? "", over, killing);
        done = exchange(tries % 2 === 0 ? wanted : undefined)
          .then(
            () => "done",
            (error: { code: string }) => error.code,
          )
          .finally(() => (over.isOver = true));
        step = await killed;
      }
      if (victims.includes("agent")) {
        await a.end("SIGKILL");
        await a.start();
      }
      context.diagnostic(`killed when its record said ${step}; ${await done}`);
      await eventually("the guest runs", async () => (await a.guests()).get("web")?.state === "running");
      const { pid } = (await a.guests()).get("web") ?? {};
      assert.deepEqual(emulatorsBelow(a.stateDirectory), [pid], "one emulator has it");
      const again = await ask(a, PORT);
      assert.deepEqual([again.boot_id, again.counter], [first.boot_id, first.counter + 1]);
      await eventually(
        "its record is gone",
        () => !existsSync(join(a.memoryDirectory, guest?.id ?? "", "exchange.json")),
      );
      await isSound();
    });
  }

  test("old killed before its state was saved is the end of the guest, and of both emulators", async () => {
    const { id = "" } = (await a.guests()).get("web") ?? {};
    const killed = killAt(id, { isOver: false }, { victims: ["old"], at: "started", ms: 0 });
    await Promise.all([killed, assert.rejects(exchange(), { code: /gone|exchange-failed/ })]);
    await eventually("it has crashed", async () => (await a.guests()).get("web")?.state === "crashed");
    await eventually("no emulator is left", () => emulatorsBelow(a.stateDirectory).length === 0);
  });
});

function readIfThere<T>(path: string): T | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as T;
  } catch {
    return undefined;
  }
}

function readNames(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory) : [];
}

function kill(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}
