import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { afterEach, before, describe, test } from "node:test";
import type { TransferPhase, TransferView } from "../../src/control/index.js";
import { eventually, type Host } from "../support/hosts.js";
import { ask, whenTransfersEnd } from "../support/sample-guest.js";
import { TwoHosts, transferOf } from "../support/two-hosts.js";

const PORT = 8080;
const CHILD_PORT = 8090;
/** The sample guest's memory takes some seconds at this rate. */
const RATE = 12 * 1024 * 1024;

/** With RAMET_RESTARTS=all every agent is killed in every state; without it each state once, by turns. */
const ALL = process.env.RAMET_RESTARTS === "all";
const VICTIMS = ["parent's", "child's", "both"] as const;
type Victim = (typeof VICTIMS)[number];

/** States and who is killed in them. */
function cases<State extends string>(states: readonly State[]): [State, Victim][] {
  return states.flatMap((state, index) =>
    VICTIMS.filter((_, turn) => ALL || turn === index % VICTIMS.length).map((victim): [State, Victim] => [
      state,
      victim,
    ]),
  );
}

/** What unfinished transfers keep beside the memory of guests, on a host. */
function kept(host: Host): string[] {
  return readdirSync(host.memoryDirectory, { recursive: true, encoding: "utf8" }).filter((path) =>
    /(copies|zeros|digests|-parent\.json)$/.test(path),
  );
}

/** Resolves as soon as a transfer of the host is seen so, from now on: also in an event that comes together with the answer. */
async function seen(host: Host, isSo: (view: TransferView) => boolean): Promise<void> {
  const found = new Promise<void>((resolve) => {
    const stop = host.client.onEvent((event) => {
      if (event.event !== "transfer" || !isSo(event.data.transfer)) return;
      stop();
      resolve();
    });
  });
  await host.call("events.subscribe", {});
  await found;
}

describe("transfers outlive their agents", () => {
  let a: Host;
  let b: Host;
  const two = TwoHosts.forTests({ web: true, configuration: { drainSeconds: 600 } });
  before(() => ({ a, b } = two));

  /** Ends agents as a crash does and starts new ones on what they left. */
  async function restart(victim: Victim): Promise<void> {
    const killed = victim === "both" ? [a, b] : [victim === "parent's" ? a : b];
    await Promise.all(killed.map((host) => host.end("SIGKILL")));
    await Promise.all(killed.map((host) => host.start()));
  }

  const fork = (params: { sweep?: "held"; paused?: boolean; rateLimitBytesPerSecond?: number } = {}) =>
    a.call("guest.fork", {
      name: "web",
      to: ["b"],
      names: ["web-1"],
      forwards: [`${CHILD_PORT}:80`],
      verify: true,
      ...params,
    });

  const migrate = () =>
    a.call("guest.migrate", { name: "web", to: "b", verify: true, rateLimitBytesPerSecond: RATE });

  /** Waits until nothing is under way, and asserts that nothing is kept and all that was sent was right. */
  async function settled(): Promise<void> {
    await whenTransfersEnd(a);
    await whenTransfersEnd(b);
    await eventually("nothing is kept", () => [...kept(a), ...kept(b)].length === 0);
    await eventually("no child is left that never came to be", async () =>
      [...(await a.guests()).values(), ...(await b.guests()).values()].every(
        ({ state }) => state !== "receiving",
      ),
    );
    for (const host of [a, b]) {
      for (const { verify, phase, error } of (await host.call("transfer.list", {})).transfers) {
        assert.equal(verify?.mismatches ?? 0, 0, `${phase} ${error?.message ?? ""}`);
      }
    }
  }

  /** Waits for the end of a transfer that must have a good one, and asserts that every page was compared. */
  async function completes(transfer: number): Promise<void> {
    await settled();
    const view = await transferOf(a, transfer);
    assert.equal(view.phase, "complete", view.error?.message);
    assert.deepEqual(view.verify, { checked: view.pages.total, mismatches: 0 });
  }

  // So that a test that fails is the only one that does.
  afterEach(async () => {
    if (!(await b.guests()).has("web-1")) return;
    await b.call("guest.kill", { name: "web-1" });
    await b.call("guest.remove", { name: "web-1" });
  });

  for (const [phase, victim] of cases<TransferPhase>(["preparing", "arming", "pausing", "starting"])) {
    test(`a fork, killed while ${phase}: ${victim}`, async () => {
      const first = await ask(a, PORT);
      const { pid } = (await a.guests()).get("web") ?? {};
      const reached = seen(a, (view) => view.phase === phase);
      const outcome = fork().catch(() => undefined);
      await reached;
      await restart(victim);
      await outcome;
      const again = await ask(a, PORT);
      assert.deepEqual([again.boot_id, again.counter], [first.boot_id, first.counter + 1]);
      assert.equal((await a.guests()).get("web")?.pid, pid);
      await settled();
      assert.equal((await a.guests()).get("web")?.state, "running");
      const child = (await b.guests()).get("web-1");
      if (child === undefined) return;
      // It may be complete a moment before its emulator has answered that it runs.
      await eventually("it runs", async () => (await b.guests()).get("web-1")?.state === "running");
      assert.equal((await ask(b, CHILD_PORT)).counter, first.counter + 1);
    });
  }

  for (const victim of ALL ? VICTIMS : (["both"] as const)) {
    test(`a fork whose child has only what it touches, killed while paging: ${victim}`, async () => {
      const first = await ask(a, PORT);
      const { transfers } = await fork({ sweep: "held" });
      const transfer = transfers[0]?.transfer ?? 0;
      assert.equal((await ask(b, CHILD_PORT)).boot_id, first.boot_id);
      const [parent, child] = [(await a.guests()).get("web"), (await b.guests()).get("web-1")];
      await restart(victim);
      assert.equal((await transferOf(a, transfer)).phase, "paging");
      const [atParent, atChild] = await Promise.all([ask(a, PORT), ask(b, CHILD_PORT)]);
      assert.equal(atParent.boot_id, first.boot_id, "the parent was not stopped");
      assert.deepEqual([atChild.boot_id, atChild.counter], [first.boot_id, first.counter + 2]);
      assert.equal((await a.guests()).get("web")?.pid, parent?.pid);
      assert.equal((await b.guests()).get("web-1")?.pid, child?.pid);
      await a.call("transfer.sweep", { transfer, sweep: "on" });
      await completes(transfer);
      assert.equal((await ask(b, CHILD_PORT)).counter, first.counter + 3);
    });
  }

  test("agents that are stopped leave their transfers to the next ones; a second signal ends the waiting", async () => {
    const first = await ask(a, PORT);
    const { transfers } = await fork({ sweep: "held" });
    const transfer = transfers[0]?.transfer ?? 0;
    for (const host of [a, b]) process.kill(host.pid, "SIGTERM");
    for (const host of [a, b])
      await eventually("it waits", () => host.log.includes("waiting for running transfers"));
    assert.deepEqual(await Promise.all([a.end("SIGTERM"), b.end("SIGTERM")]), [0, 0]);
    await Promise.all([a.start(), b.start()]);
    assert.equal((await ask(b, CHILD_PORT)).counter, first.counter + 1);
    await eventually("it is linked", async () => (await transferOf(a, transfer)).link?.state === "linked");
    await a.call("transfer.sweep", { transfer, sweep: "on" });
    await completes(transfer);
  });

  test("a fork that is nearly complete, both agents killed", async () => {
    const nearly = seen(a, ({ pages }) => pages.received > 0.97 * pages.total);
    const { transfers } = await fork({ rateLimitBytesPerSecond: RATE });
    await nearly;
    await restart("both");
    await settled();
    const view = await transferOf(a, transfers[0]?.transfer ?? 0).catch(() => undefined);
    assert.notEqual(view?.phase, "failed", view?.error?.message);
    await ask(b, CHILD_PORT);
  });

  test("a held child stays held and is let run later, both agents killed", async () => {
    const first = await ask(a, PORT);
    const { transfers } = await fork({ paused: true });
    const transfer = transfers[0]?.transfer ?? 0;
    await restart("both");
    await settled();
    await eventually("it is held", async () => (await b.guests()).get("web-1")?.state === "paused");
    await b.call("transfer.run", { transfer });
    assert.equal((await ask(b, CHILD_PORT)).counter, first.counter + 1);
  });

  for (const [state, victim] of cases([
    "preparing",
    "pausing",
    "starting",
    "paging",
    "nearly complete",
  ] as const)) {
    test(`a migration, killed while ${state}: ${victim}`, async () => {
      const first = await ask(a, PORT);
      const reached = seen(a, ({ phase, pages }) =>
        state === "nearly complete" ? pages.received > 0.97 * pages.total : phase === state,
      );
      const outcome = migrate().catch(() => undefined);
      await reached;
      await restart(victim);
      await outcome;
      if (state === "paging") {
        assert.equal((await a.guests()).get("web")?.state, "migrated");
        await assert.rejects(ask(a, PORT), "the parent does not run");
      }
      await settled();
      const places: Host[] = [];
      for (const host of [a, b]) {
        const guest = (await host.guests()).get("web");
        if (guest === undefined) continue;
        assert.equal(guest.state, "running", `${host.name}: ${guest.message}`);
        places.push(host);
      }
      const [place, ...others] = places;
      assert.ok(place !== undefined && others.length === 0, "it is at one place");
      const again = await ask(place, PORT);
      assert.deepEqual([again.boot_id, again.counter], [first.boot_id, first.counter + 1]);
      if (state === "paging" || state === "nearly complete") assert.equal(place, b, "it has switched");
      if (place === a) return;
      await b.call("guest.migrate", { name: "web", to: "a" });
      await settled();
    });
  }
});
