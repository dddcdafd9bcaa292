import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { ExchangeOutcome } from "../../src/control/index.js";
import { killInExchange, type Killing } from "../support/exchange-killings.js";
import { eventually, emulatorsBelow, Hosts, type Host } from "../support/hosts.js";
import { missingNextEmulator, nextEmulator } from "../support/next-emulator.js";
import { lockFile } from "../support/file-lock.js";
import { ask, runSample } from "../support/sample-guest.js";

const PORT = 8280;
const MIB = 1024 * 1024;
const STAMPED_MIB = 32;
/** How often there and back. */
const ROUNDS = Number(process.env["RAMET_EXCHANGE_ROUNDS"] ?? 10);
/** After so many exchanges the agent is killed, too. */
const EXCHANGES_OF_AN_AGENT = 20;

/** Who is killed, how long after what was seen. RAMET_EXCHANGE_KILLS=all plays each. */
const KILLINGS: readonly (Killing & { always?: true })[] = [
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

interface Stamps {
  checked: number;
  bad: number;
}
interface Counted {
  counter: number;
  boot_id: string;
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

  /** Bytes of its disk's file that the host has in memory, and its size (fincore(1)). */
  const cachedOf = async () => {
    const disk = (await a.guests()).get("web")?.disks?.[0]?.chain[0]?.id ?? "";
    const path = join(a.stateDirectory, "disks", disk, "disk.qcow2");
    return execFileSync("fincore", ["-bno", "RES,SIZE", path]).toString().trim().split(/\s+/).map(Number) as [
      number,
      number,
    ];
  };

  /** What must hold after every exchange. @returns what the guest counts now. */
  async function isWhole(outcome: ExchangeOutcome, before: Counted): Promise<Counted> {
    const { guest, to, memory } = outcome;
    assert.deepEqual([guest.pid, guest.emulatorVersion, guest.state], [to.pid, to.version, "running"]);
    assert.ok(
      Math.abs(memory.allocatedAfterBytes - memory.allocatedBeforeBytes) <= MIB,
      JSON.stringify(memory),
    );
    const [{ counter, boot_id }, { committed }] = await Promise.all([ask(a, PORT), rows()]);
    assert.deepEqual({ counter, boot_id }, { counter: before.counter + 1, boot_id: before.boot_id });
    await eventually("rows are committed", async () => (await rows()).committed > committed);
    assert.deepEqual(emulatorsBelow(a.stateDirectory), [to.pid], "one emulator has it");
    const left = readdirSync(join(a.memoryDirectory, guest.id));
    assert.deepEqual(
      left.filter((name) => /exchange|device-state/.test(name)),
      [],
    );
    return { counter, boot_id };
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
    let counted: Counted = await ask(a, PORT);
    for (let round = 0; round < ROUNDS * 2; round += 1) {
      const outcome = await exchange(round % 2 === 0 ? "10.0" : undefined);
      pauses.push(outcome.pauseUs);
      assert.match(outcome.to.version, round % 2 === 0 ? /^10\.0/ : /^7\./);
      counted = await isWhole(outcome, counted);
      if (round % EXCHANGES_OF_AN_AGENT === 1) {
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
    await exchange();
    const [cached, size] = await cachedOf();
    assert.ok(cached > size / 2, `of ${size} bytes of its disk ${cached} are in the host's memory`);
    assert.deepEqual(hosts.problems, []);
  });

  const killIn = (killing: Killing) => killInExchange(a, { ...killing, name: "web", exchange });

  for (const killing of KILLINGS) {
    if (process.env["RAMET_EXCHANGE_KILLS"] !== "all" && killing.always !== true) continue;
    const { victims, at, ms } = killing;
    test(`${victims.join(" and ")} killed ${ms} ms after it was ${at}`, async (context) => {
      const guest = (await a.guests()).get("web");
      const first = await ask(a, PORT);
      const { step, done } = await killIn(killing);
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
      const directory = join(a.memoryDirectory, guest?.id ?? "");
      await eventually("its record is gone", () => !existsSync(join(directory, "exchange.json")));
      assert.deepEqual(
        readdirSync(directory).filter((name) => name.includes("device-state")),
        [],
      );
      await isSound();
    });
  }

  /** That it stands still, and that its user is told how it goes on. */
  async function standsStill(pid: number | undefined): Promise<void> {
    const { state, message } = (await a.guests()).get("web") ?? {};
    assert.equal(state, "paused");
    assert.match(message ?? "", /stands still since an exchange of its emulator failed; ramet resume web/);
    assert.deepEqual(emulatorsBelow(a.stateDirectory), [pid], "the old emulator has it");
  }

  test("whose disk neither emulator can have stands still until it is resumed", async () => {
    const guest = (await a.guests()).get("web");
    const lock = await lockFile(
      join(a.stateDirectory, "disks", guest?.disks?.[0]?.chain[0]?.id ?? "", "disk.qcow2"),
    );
    try {
      await assert.rejects(exchange("10.0"), {
        code: "exchange-failed",
        message: /lock.*it is paused in the emulator it had/s,
      });
      await standsStill(guest?.pid);
      await assert.rejects(a.call("guest.resume", { name: "web" }), { code: "command-failed" });
      await standsStill(guest?.pid);
    } finally {
      await lock.end();
    }
    const { guest: again } = await a.call("guest.resume", { name: "web" });
    assert.deepEqual([again.state, again.message, again.pid], ["running", undefined, guest?.pid]);
    await isSound();
  });

  if (process.env["RAMET_EXCHANGE_KILLS"] === "all")
    test("old that hangs when it is to go on stands still, and runs when it does", async () => {
      const { done } = await killIn({ victims: ["new"], hangs: ["old"], at: "saving", ms: 0 });
      assert.equal(await done, "exchange-failed");
      const { pid = 0 } = (await a.guests()).get("web") ?? {};
      await standsStill(pid);
      process.kill(pid, "SIGCONT");
      await eventually("it runs", async () => (await a.guests()).get("web")?.state === "running");
      assert.equal((await a.guests()).get("web")?.message, undefined);
      await isSound();
    });

  test("old killed before its state was saved is the end of the guest, and of both emulators", async () => {
    const { done } = await killIn({ victims: ["old"], at: "started", ms: 0, before: "saving" });
    assert.match(await done, /^(gone|exchange-failed)$/);
    await eventually("it has crashed", async () => (await a.guests()).get("web")?.state === "crashed");
    await eventually("no emulator is left", () => emulatorsBelow(a.stateDirectory).length === 0);
  });
});
