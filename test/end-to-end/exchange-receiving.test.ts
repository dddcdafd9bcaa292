import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { codeOf } from "../../src/base/index.js";
import type { ExchangeOutcome, GuestView, TransferView } from "../../src/control/index.js";
import { killInExchange, type Killing } from "../support/exchange-killings.js";
import { emulatorsBelow, eventually, Hosts, type Host } from "../support/hosts.js";
import { missingNextEmulator, nextEmulator } from "../support/next-emulator.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";

const PARENT_PORT = 8310;
const CHILD_PORT = 8320;
const STAMPED_MIB = 24;
const STAMPED_PAGES = STAMPED_MIB * 256;
const MEMORY_MIB = 128;
const PAGES = MEMORY_MIB * 256;

interface Verified {
  checked: number;
  bad: number;
}

/** Who is killed, how long after what was seen. RAMET_EXCHANGE_KILLS=all plays each. */
const KILLINGS: readonly (Killing & { always?: true })[] = [
  { victims: ["agent"], at: "started", ms: 0 },
  { victims: ["agent"], at: "saving", ms: 0 },
  { victims: ["agent"], at: "saving", ms: 4 },
  { victims: ["agent"], at: "saving", ms: 8 },
  { victims: ["agent"], at: "told", ms: 0, always: true },
  { victims: ["agent"], at: "told", ms: 10 },
  { victims: ["new"], at: "saving", ms: 0, always: true },
  { victims: ["new"], at: "saving", ms: 6 },
  { victims: ["agent", "new"], at: "saving", ms: 2 },
];

/** What the kernel says is registered for missing pages in an emulator (proc(5), VmFlags). */
function isMissing(pid: number): boolean {
  return /^VmFlags:.*\bum\b/m.test(readFileSync(`/proc/${pid}/smaps`, "utf8"));
}

const skip = missingNextEmulator();
describe("the emulator of a child that lacks pages is exchanged", { skip }, () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  before(async () => {
    const configuration = { emulators: [nextEmulator()], limits: { memoryMib: 1024 } };
    hosts = await Hosts.start(2, { port: 7172, configuration });
    a = hosts.at(0);
    b = hosts.at(1);
    await runSample(a, { name: "parent", memoryMiB: MEMORY_MIB, hostPort: PARENT_PORT });
    await ask(a, PARENT_PORT, `/stamp/start?mib=${STAMPED_MIB}&fill=page`);
    await eventually(
      "all was written once",
      async () => (await ask<{ generation: number }>(a, PARENT_PORT, "/stamp/status")).generation > 1,
    );
  });
  afterEach(async () => b.removeGuests());
  after(() => hosts.stop());

  const child = async (): Promise<GuestView> => (await b.call("guest.show", { name: "child" })).guest;
  const show = async (transfer: number): Promise<TransferView> =>
    (await a.call("transfer.show", { transfer })).transfer;
  /** Its lanes are dialled again after an exchange, and until they are there the next one is refused. */
  const exchange = async (emulator?: string): Promise<ExchangeOutcome> => {
    let outcome: ExchangeOutcome | undefined;
    await eventually("the sender is within reach", async () => {
      try {
        outcome = await b.call("guest.exchange", {
          name: "child",
          ...(emulator === undefined ? {} : { emulator }),
        });
      } catch (error) {
        if (codeOf(error) !== "not-ready") throw error;
      }
      return outcome !== undefined;
    });
    return outcome as ExchangeOutcome;
  };
  const verify = (order: string) => ask<Verified>(b, CHILD_PORT, `/stamp/verify?order=${order}&seed=7`);

  /** A child that runs on b and is sent only what it touches. */
  async function forkHeld(): Promise<number> {
    const { transfers } = await a.call("guest.fork", {
      name: "parent",
      to: ["b"],
      names: ["child"],
      forwards: [`${CHILD_PORT}:80`],
      verify: true,
      sweep: "held",
    });
    return transfers[0]?.transfer ?? 0;
  }

  /** Every page is what it was at the instant: the guest's own check, then the digest of each. */
  async function isWhole(transfer: number): Promise<void> {
    const before = await verify("linear");
    assert.deepEqual([before.checked, before.bad], [STAMPED_PAGES, 0]);
    await a.call("transfer.sweep", { transfer, sweep: "on" });
    await whenTransfersEnd(a);
    const view = await show(transfer);
    assert.equal(view.phase, "complete", view.message);
    assert.deepEqual(view.verify, { checked: PAGES, mismatches: 0 });
    const guest = await child();
    assert.equal(guest.state, "running");
    assert.equal(isMissing(guest.pid ?? 0), false, "nothing is registered any more");
    const { checked, bad } = await verify("random");
    assert.deepEqual({ checked, bad }, { checked: STAMPED_PAGES, bad: 0 });
    assert.deepEqual(emulatorsBelow(b.stateDirectory), [guest.pid], "one emulator has it");
    const left = readdirSync(join(b.memoryDirectory, guest.id));
    assert.deepEqual(
      left.filter((name) => /exchange|device-state|zeros|digests/.test(name)),
      [],
    );
  }

  test("there and back while nothing is swept and pages are waited for; then every page is right", async (context) => {
    const transfer = await forkHeld();
    // The child writes from its first instruction on, and waits for a page each time.
    const { pages: before } = await show(transfer);
    const there = await exchange("10.0");
    assert.equal(there.guest.state, "receiving");
    assert.ok(isMissing(there.to.pid), "what it lacks is missing in the new emulator");
    const first = await ask(b, CHILD_PORT);
    const { pages: between } = await show(transfer);
    assert.ok(between.received < PAGES / 2, `${between.received} pages are there`);
    const back = await exchange();
    await exchange("10.0");
    context.diagnostic(
      `${before.received} pages before, ${between.received} after the first; pauses ${[there, back].map(({ pauseUs }) => (pauseUs / 1000).toFixed(1)).join(", ")} ms`,
    );
    const again = await ask(b, CHILD_PORT);
    assert.deepEqual([again.boot_id, again.counter], [first.boot_id, first.counter + 1]);
    await isWhole(transfer);
    assert.deepEqual(hosts.problems, []);
  });

  test("a migrated guest on its way", async () => {
    await runSample(a, { name: "mover", memoryMiB: 96, hostPort: CHILD_PORT + 1 });
    await ask(a, CHILD_PORT + 1, `/stamp/start?mib=8&fill=page`);
    const { transfers } = await a.call("guest.migrate", {
      name: "mover",
      to: "b",
      verify: true,
      rateLimitBytesPerSecond: 65_536,
    });
    const transfer = transfers[0]?.transfer ?? 0;
    const outcome = await b.call("guest.exchange", { name: "mover", emulator: "10.0" });
    assert.equal(outcome.guest.state, "receiving");
    await a.call("transfer.steer", { transfer, rateLimitBytesPerSecond: 0 });
    await whenTransfersEnd(a);
    const view = await show(transfer);
    assert.equal(view.phase, "complete", view.message);
    assert.equal(view.verify?.mismatches, 0);
    const { checked, bad } = await ask<Verified>(b, CHILD_PORT + 1, "/stamp/verify?order=random");
    assert.deepEqual({ checked, bad }, { checked: 8 * 256, bad: 0 });
    assert.match((await b.guests()).get("mover")?.emulatorVersion ?? "", /^10\.0/);
    assert.deepEqual(hosts.problems, []);
  });

  test("a child that is held and has all its memory stays held, and runs in the new emulator when it is let", async () => {
    const { transfers } = await a.call("guest.fork", {
      name: "parent",
      to: ["b"],
      names: ["child"],
      forwards: [`${CHILD_PORT}:80`],
      verify: true,
      paused: true,
    });
    const transfer = transfers[0]?.transfer ?? 0;
    await whenTransfersEnd(a);
    await eventually("it is complete", async () => (await child()).state === "paused");
    const { guest, to, pauseUs } = await exchange("10.0");
    assert.deepEqual([guest.state, guest.pid, pauseUs], ["paused", to.pid, 0]);
    await a.call("transfer.run", { transfer });
    const { checked, bad } = await verify("random");
    assert.deepEqual({ checked, bad }, { checked: STAMPED_PAGES, bad: 0 });
    assert.deepEqual([(await child()).state, (await child()).pid], ["running", to.pid]);
    assert.deepEqual(hosts.problems, []);
  });

  const killIn = (killing: Killing) => killInExchange(b, { ...killing, name: "child", exchange });

  if (process.env["RAMET_EXCHANGE_KILLS"] === "all")
    test("stands still in an old emulator that hangs, is shown to, and goes on when that does", async () => {
      const transfer = await forkHeld();
      await ask(b, CHILD_PORT);
      const { done } = await killIn({ victims: ["new"], hangs: ["old"], at: "saving", ms: 0 });
      assert.equal(await done, "exchange-failed");
      const { state, message, pid = 0 } = await child();
      assert.equal(state, "paused");
      assert.match(message ?? "", /stands still .* ramet resume child lets it run on/);
      process.kill(pid, "SIGCONT");
      await eventually("it goes on", async () => (await child()).state === "receiving");
      assert.equal((await child()).message, undefined);
      await isWhole(transfer);
    });

  for (const killing of KILLINGS) {
    if (process.env["RAMET_EXCHANGE_KILLS"] !== "all" && killing.always !== true) continue;
    const { victims, at, ms } = killing;
    test(`${victims.join(" and ")} killed ${ms} ms after it was ${at}`, async (context) => {
      const transfer = await forkHeld();
      const { boot_id, counter } = await ask(b, CHILD_PORT);
      const { step, done } = await killIn(killing);
      if (victims.includes("agent")) {
        await b.end("SIGKILL");
        await b.start();
      }
      context.diagnostic(`killed when its record said ${step}; ${await done}`);
      await eventually("one emulator has it", () => emulatorsBelow(b.stateDirectory).length === 1);
      await eventually("it answers", async () =>
        ask(b, CHILD_PORT).then(
          () => true,
          () => false,
        ),
      );
      const now = await ask(b, CHILD_PORT);
      assert.equal(now.boot_id, boot_id);
      assert.ok(now.counter > counter);
      await isWhole(transfer);
    });
  }
});
