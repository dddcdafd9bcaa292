import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import type { ExchangeRunView, ExchangeStanding, ParamsInput } from "../../src/control/index.js";
import { eventually, emulatorsBelow, Hosts, type Host } from "../support/hosts.js";
import { missingNextEmulator, nextEmulator } from "../support/next-emulator.js";
import { ask, runSample, sampleGuest, whenTransfersEnd } from "../support/sample-guest.js";

const ROOT = new URL("../..", import.meta.url).pathname;
const GUESTS = 8;
const FIRST_PORT = 8290;
const STAMPED_MIB = 4;
const PAGES_PER_MIB = 256;

interface Stamps {
  checked: number;
  bad: number;
}

const skip = missingNextEmulator();
describe("every guest of a host is brought to another emulator", { skip }, () => {
  let hosts: Hosts;
  let a: Host;
  const names = Array.from({ length: GUESTS }, (_, index) => `web-${index}`);
  const portOf = (name: string) => FIRST_PORT + Number(name.split("-")[1]);
  before(async () => {
    const limits = { memoryMib: 2048 };
    hosts = await Hosts.start(1, { configuration: { emulators: [nextEmulator()], limits } });
    a = hosts.at(0);
    // One is booted, and the others are forked from it, which takes less.
    const [first = "", ...others] = names;
    await runSample(a, { name: first, hostPort: portOf(first), memoryMiB: 96 });
    await ask(a, portOf(first), `/stamp/start?mib=${STAMPED_MIB}&fill=page&rate=10`);
    for (const name of others) {
      const forwards = [`${portOf(name)}:80`];
      await a.call("guest.fork", { name: first, names: [name], memory: "copied", forwards });
      await whenTransfersEnd(a);
    }
  });
  after(() => hosts.stop());

  const start = (emulator?: string, others: { parallel?: number; waitMs?: number } = {}) =>
    a.call("exchange.start", { ...(emulator === undefined ? {} : { emulator }), ...others });
  async function show(): Promise<ExchangeRunView> {
    const { run } = await a.call("exchange.show", {});
    assert.ok(run !== undefined, "there was an exchange of all guests");
    return run;
  }
  async function untilOver(): Promise<ExchangeRunView> {
    await eventually("it is over", async () => (await show()).endedAtMs !== undefined, 120_000);
    return show();
  }
  const standings = ({ guests }: ExchangeRunView) =>
    new Map<string, ExchangeStanding>(guests.map(({ name, standing }) => [name, standing]));
  const countOf = (run: ExchangeRunView, standing: ExchangeStanding) =>
    run.guests.filter((guest) => guest.standing === standing).length;

  /** One emulator each, of this version, and what each guest says of itself. */
  async function allAreSound(version: RegExp, boots: ReadonlyMap<string, string>): Promise<void> {
    const guests = await a.guests();
    assert.equal(emulatorsBelow(a.stateDirectory).length, guests.size, "one emulator has each");
    for (const name of names) {
      const guest = guests.get(name);
      assert.equal(guest?.state, "running");
      assert.match(guest.emulatorVersion ?? "", version);
      assert.equal((await ask(a, portOf(name))).boot_id, boots.get(name), `${name} is the same guest`);
      const { checked, bad } = await ask<Stamps>(a, portOf(name), "/stamp/verify?order=random");
      assert.deepEqual({ checked, bad }, { checked: STAMPED_MIB * PAGES_PER_MIB, bad: 0 });
    }
  }
  async function bootIds(): Promise<Map<string, string>> {
    const found = new Map<string, string>();
    for (const name of names) found.set(name, (await ask(a, portOf(name))).boot_id);
    return found;
  }

  test("what cannot be is refused, and nothing is begun", async () => {
    await assert.rejects(start("99.9"), { code: "no-such-emulator", message: /99\.9/ });
    await assert.rejects(start("/usr/bin/true"), { code: "no-such-emulator", message: /\/usr\/bin\/true/ });
    for (const parallel of [0, 17, 1.5])
      await assert.rejects(start("10.0", { parallel }), { code: "bad-params", message: /parallel/ });
    await assert.rejects(a.call("exchange.stop", {}), { code: "bad-state" });
    assert.deepEqual(await a.call("exchange.show", {}), {});
  });

  test("an agent is killed half-way, and the next one goes on", async (context) => {
    const boots = await bootIds();
    const { run } = await start("10.0", { parallel: 2 });
    assert.deepEqual([run.phase, run.guests.length, run.parallel], ["running", GUESTS, 2]);
    await assert.rejects(start("10.0"), { code: "busy", message: /--status/ });
    await eventually("some are exchanged", async () => countOf(await show(), "exchanged") >= GUESTS / 2 - 1);
    await a.end("SIGKILL");
    const path = join(a.stateDirectory, "exchange-run.json");
    const left = JSON.parse(readFileSync(path, "utf8")) as ExchangeRunView;
    context.diagnostic(`killed at ${JSON.stringify([...standings(left).values()])}`);
    assert.equal(left.endedAtMs, undefined);
    assert.ok(countOf(left, "exchanged") < GUESTS, "it was not over");
    await a.start();
    const over = await untilOver();
    assert.equal(over.phase, "done");
    assert.deepEqual(
      standings(over),
      new Map(names.map((name) => [name, "exchanged"])),
      JSON.stringify(over.guests),
    );
    for (const { from, to } of over.guests) assert.match(`${from} ${to}`, /^7\.\S+ 10\.0/);
    await allAreSound(/^10\.0/, boots);
    await start("10.0");
    const again = await untilOver();
    assert.equal(countOf(again, "already-there"), GUESTS, "a second time there is nothing to do");
    assert.deepEqual(hosts.problems, []);
  });

  test("it waits for who is busy, takes up who comes, passes over who ends, and can be stopped", async () => {
    const boots = await bootIds();
    const fork: ParamsInput<"guest.fork"> = {
      name: "web-0",
      memory: "copied",
      sweep: "held",
      names: ["copy"],
    };
    const { transfers } = await a.call("guest.fork", fork);
    const transfer = transfers[0]?.transfer ?? 0;
    await start(undefined, { parallel: 1, waitMs: 1000 });
    const first = await untilOver();
    const busy = first.guests.find(({ name }) => name === "web-0");
    assert.deepEqual([busy?.standing, busy?.reason?.code], ["refused", "busy"], JSON.stringify(busy));
    assert.match(busy?.reason?.message ?? "", /transfer/);
    assert.equal(countOf(first, "exchanged"), GUESTS - 1);

    await start(undefined, { parallel: 3 });
    await eventually("it waits for the busy one only", async () => {
      const run = await show();
      const others = run.guests.filter(({ reason }) => reason?.code !== "busy");
      const isThere = others.every(({ standing }) => standing === "already-there");
      return isThere && others.length < run.guests.length;
    });
    await a.call("guest.run", { name: "late", ...sampleGuest(), memoryMiB: 64 });
    await eventually("who came has its turn", async () => standings(await show()).has("late"));
    await a.call("guest.kill", { name: "late" });
    await a.call("transfer.cancel", { transfer });
    const second = await untilOver();
    assert.equal(standings(second).get("web-0"), "exchanged");
    assert.equal(second.phase, "done");
    await a.call("guest.remove", { name: "late" });
    await allAreSound(/^7\./, boots);

    await start("10.0", { parallel: 1 });
    await a.call("guest.kill", { name: "web-7" });
    const stopping = await a.call("exchange.stop", {});
    assert.match(stopping.run.phase, /stopping|stopped/);
    const stopped = await untilOver();
    assert.equal(stopped.phase, "stopped");
    assert.ok(countOf(stopped, "left") > 0);
    assert.deepEqual(hosts.problems, []);
  });

  test("the command line follows it, and says how it came out", async () => {
    const ramet = (...args: string[]) =>
      promisify(execFile)(process.execPath, [
        join(ROOT, "dist/cli/main.js"),
        "--agent",
        `unix:${a.socket}`,
        "exchange",
        ...args,
      ]);
    const { stdout } = await ramet("--all", "--emulator", "10.0", "--parallel", "4");
    assert.match(stdout, /web-\d: exchanged 7\.\S+ to 10\.0\S+, pause/);
    assert.match(stdout, /is over, /);
    const shown = await ramet("--status", "--json");
    const { run } = JSON.parse(shown.stdout) as { run: ExchangeRunView };
    const others = run.guests.filter(({ standing }) => !/exchanged|already-there|ended/.test(standing));
    assert.deepEqual([run.phase, others], ["done", []]);
    assert.ok(countOf(run, "exchanged") > 0);
    await assert.rejects(ramet("--all", "--parallel", "17"), { code: 2, stderr: /1 to 16/ });
    await assert.rejects(ramet("--all", "--emulator", "99.9"), { code: 4, stderr: /no emulator 99\.9/ });
  });
});
