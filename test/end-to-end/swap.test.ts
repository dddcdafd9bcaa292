import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { after, before, describe, test } from "node:test";
import { realClock, sleep } from "../../src/base/index.js";
import type { GuestView } from "../../src/control/index.js";
import { assertSound, chainOf, disksOf, goOn, rows } from "../support/disk-rows.js";
import { emulatorsBelow, eventually, Hosts, type Host } from "../support/hosts.js";
import { RoleClient, type Seen } from "../support/role-clients.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";
import { removeGuest, TwoHosts } from "../support/two-hosts.js";
import { TwoNetworks } from "../support/two-networks.js";

const PORT = 8320;
const NEXT_PORT = 8321;
const MIB = 1024 * 1024;
const GUEST_ADDRESS = "10.98.0.9";

/** What can be seen of a swap from outside, in turn: its record's steps, and the first guest's record with its new name. */
type Sight = "moving" | "moved" | "named";

/** When the agent is killed: so long after what was seen. RAMET_SWAP_KILLS=all plays each. */
const KILLINGS: readonly { at: Sight; ms: number; always?: true }[] = [
  { at: "moving", ms: 0, always: true },
  { at: "moving", ms: 0.5 },
  { at: "moving", ms: 1 },
  { at: "moving", ms: 1.5 },
  { at: "moving", ms: 2 },
  { at: "moving", ms: 3 },
  { at: "moving", ms: 4 },
  { at: "moving", ms: 6 },
  { at: "moved", ms: 0, always: true },
  { at: "moved", ms: 0.5 },
  { at: "moved", ms: 1 },
  { at: "moved", ms: 2 },
  { at: "named", ms: 0 },
  { at: "named", ms: 1 },
];
const SPIN_MS = 30_000;
const MAX_TRIES = 5;

const swap = (host: Host) => host.call("guest.swap", { name: "web", child: "next" });
const machineAt = async (host: Host, port: number): Promise<string> =>
  (await ask<{ vmgenid: string }>(host, port, "/vmgenid")).vmgenid;
const idOf = async (host: Host, name: string): Promise<string> =>
  (await host.call("guest.show", { name })).guest.id;

/** Each turn began with one question more at most, and every question was answered in the end. */
function assertSwapped({ turns, unanswered }: Seen, machines: readonly string[]): void {
  assert.deepEqual(
    turns.map(({ machine }) => machine),
    machines,
    JSON.stringify(turns),
  );
  for (const { answers, retries } of turns) assert.ok(retries <= 1 && answers >= 1, JSON.stringify(turns));
  assert.ok(unanswered <= 1);
}

describe("a guest with forwarded ports and a disk, and its child", () => {
  const two = TwoHosts.forTests({ configuration: { limits: { memoryMib: 2048 } } });
  const machines = new Map<string, string>();
  let a: Host;

  const clients: RoleClient[] = [];
  after(() => endAll(clients));

  before(async () => {
    a = two.a;
    await runSample(a, { name: "web", hostPort: PORT, memoryMiB: 128, disks: [{ sizeBytes: 64 * MIB }] });
    await ask(a, PORT, "/disk/start?pause=2000&tag=1");
    await goOn(a, PORT, 20);
    await a.call("guest.fork", { name: "web", names: ["next"], forwards: [`${NEXT_PORT}:80`] });
    await ask(a, NEXT_PORT, "/disk/tag?value=2");
    for (const [name, port] of [
      ["web", PORT],
      ["next", NEXT_PORT],
    ] as const)
      machines.set(await idOf(a, name), await machineAt(a, port));
  });

  const machineOf = async (name: string): Promise<string> => machines.get(await idOf(a, name)) ?? name;

  /** What must hold whenever no swap is under way: each name and each port is one machine's, and it is the same one. */
  async function isWhole(): Promise<void> {
    const guests = await a.guests();
    assert.deepEqual([...guests.keys()].filter((name) => !name.startsWith("third")).toSorted(), [
      "next",
      "web",
    ]);
    for (const [name, port] of [
      ["web", PORT],
      ["next", NEXT_PORT],
    ] as const) {
      assert.equal(await machineAt(a, port), await machineOf(name), `${name} answers at ${port}`);
      const { network, state, message } = guests.get(name) ?? {};
      assert.deepEqual([state, message], ["running", undefined]);
      assert.deepEqual(network?.mode === "user" ? network.forwards.map(({ hostPort }) => hostPort) : [], [
        port,
      ]);
    }
    await eventually("its record is gone", () => swapsOf(a).length === 0);
  }

  test("exchange names and ports, there and back, and a client asks once more at most", async (context) => {
    const [parent, child] = [await idOf(a, "web"), await idOf(a, "next")];
    const url = `http://${a.address}:${PORT}`;
    clients.push(new RoleClient(url, { mode: "keep" }), new RoleClient(url, { mode: "anew" }));
    await Promise.all(clients.map((client) => client.whenAnswered(1)));
    for (const [index, [production, other]] of [
      [child, parent],
      [parent, child],
    ].entries()) {
      const outcome = await swap(a);
      context.diagnostic(`${outcome.gapUs} µs, ${outcome.cut} connections ended`);
      assert.deepEqual([outcome.guest.id, outcome.other.id, outcome.message], [production, other, undefined]);
      assert.deepEqual([outcome.guest.name, outcome.other.name], ["web", "next"]);
      assert.ok(outcome.cut >= 1, "the kept connection");
      await isWhole();
      await Promise.all(clients.map((client) => client.whenAnswered(index + 2)));
      await sleep(realClock, 300);
    }
    const order = [parent, child, parent].map((id) => machines.get(id) ?? id);
    for (const client of clients) assertSwapped(await client.end(), order);
    assert.deepEqual(two.hosts.problems, []);
  });

  test("say who is whose child by the names they have now, also to a child of the former child", async () => {
    const parent = await idOf(a, "web");
    const parentOf = async (name: string) => (await a.call("guest.show", { name })).guest.parent?.guest;
    assert.equal(await parentOf("next"), "web");
    await swap(a);
    const { guest } = await a.call("guest.show", { name: "web" });
    assert.deepEqual([guest.parent?.guest, guest.sharesWith], ["next", "next"]);
    await a.call("guest.fork", { name: "web", names: ["third"] });
    assert.equal(await parentOf("third"), "web");
    await whenTransfersEnd(a);
    await a.end("SIGKILL");
    await a.start();
    assert.equal(await idOf(a, "next"), parent, "the next agent knows them by the same names");
    await isWhole();
    await swap(a);
    assert.deepEqual([await parentOf("next"), await parentOf("third")], ["web", "next"]);
    await removeGuest(a, "third");
  });

  test("keep the disks that they wrote", async () => {
    const [parent, child] = [await chainOf(a, "web"), await chainOf(a, "next")];
    await swap(a);
    assert.deepEqual([await chainOf(a, "web"), await chainOf(a, "next")], [child, parent]);
    const writers = (await disksOf(a)).flatMap(({ id, guest }) => (guest === undefined ? [] : [[id, guest]]));
    assert.deepEqual(new Map(writers as [string, string][]).get(child[0]?.id ?? ""), "web");
    for (const port of [PORT, NEXT_PORT]) {
      await goOn(a, port, 20);
      await rows(a, port, "stop");
    }
    const [ofChild, ofParent] = [await assertSound(a, PORT, 40), await assertSound(a, NEXT_PORT, 40)];
    assert.ok((ofChild.tags[2] ?? 0) >= 20, JSON.stringify(ofChild));
    assert.equal(ofParent.tags[2] ?? 0, 0, JSON.stringify(ofParent));
    for (const port of [PORT, NEXT_PORT]) await ask(a, port, "/disk/start?pause=2000");
    // Whose memory its children share.
    await swap(a);
  });

  test("are refused for what is not to be swapped, and nothing is touched", async () => {
    const refused = async (child: string, code: string, message: RegExp) =>
      assert.rejects(a.call("guest.swap", { name: "web", child }), { code, message });
    await refused("web", "bad-request", /with itself/);
    await refused("nobody", "no-such-guest", /no guest nobody/);
    await a.call("guest.fork", { name: "web", names: ["alone"] });
    await whenTransfersEnd(a);
    await refused("alone", "refused", /alone was started apart.*--network attached/);
    await a.call("guest.freeze", { name: "alone" });
    await refused("alone", "bad-state", /alone is frozen/);
    await removeGuest(a, "alone");
    const { kernel = "" } = (await a.call("guest.show", { name: "web" })).guest;
    await a.call("guest.run", { name: "stranger", kernel, network: { mode: "user" } });
    await refused("stranger", "refused", /not guests of one fork/);
    await removeGuest(a, "stranger");
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["b"],
      names: ["far"],
      sweep: "held",
    });
    await refused("next", "busy", /guest web is busy with a fork to b/);
    await refused("far", "no-such-guest", /ramet migrate far --to a/);
    await a.call("transfer.cancel", { transfer: transfers[0]?.transfer ?? 0 });
    await eventually("web is idle", async () => (await a.guests()).get("web")?.transfers.length === 0);
    await isWhole();
  });

  for (const killing of KILLINGS) {
    if (process.env["RAMET_SWAP_KILLS"] !== "all" && killing.always !== true) continue;
    test(`have one role each after the agent was killed ${killing.ms} ms after it was ${killing.at}`, async (context) => {
      const { parent, left } = await dieAt(a, killing);
      await a.start();
      await eventually("it is settled", () => swapsOf(a).length === 0);
      await isWhole();
      const became = (await idOf(a, "web")) === parent.id ? "undone" : "done";
      context.diagnostic(`left ${left}; ${became}`);
      if (left === "moved") assert.equal(became, "done");
      if (left === "moving") assert.equal(became, "undone");
      assert.equal(emulatorsBelow(a.stateDirectory).length, 2);
    });
  }

  test("of whom the parent ended while the agent was dead: the child has production", async () => {
    const { parent, left } = await dieAt(a, { at: "moving", ms: 0 });
    assert.notEqual(left, "nothing");
    process.kill(parent.pid ?? 0, "SIGKILL");
    await a.start();
    await eventually("it is settled", () => swapsOf(a).length === 0);
    assert.equal(await idOf(a, "next"), parent.id);
    assert.equal((await a.guests()).get("next")?.state, "crashed");
    assert.equal(await machineAt(a, PORT), await machineOf("web"));
    await rows(a, PORT, "stop");
    await assertSound(a, PORT);
  });
});

/** Kills the agent as soon as a swap is seen to have come so far. @returns whether it was seen. */
async function killAt(
  a: Host,
  over: { isOver: boolean },
  { at, ms }: (typeof KILLINGS)[number],
): Promise<boolean> {
  const child = await idOf(a, "next");
  const until = performance.now() + SPIN_MS;
  for (;;) {
    const step = swapsOf(a)[0]?.step;
    const isNamed = step === "moved" && nameOf(a, child) === "web";
    if (step !== undefined && (step === at || isNamed)) {
      const from = performance.now();
      while (performance.now() < from + ms);
      process.kill(a.pid, "SIGKILL");
      return true;
    }
    if (over.isOver) return false;
    assert.ok(performance.now() < until, "a swap is seen");
    await turn();
  }
}

/** Begins a swap and kills the agent in its midst. @returns who was in production before, and what the record said then. */
async function dieAt(
  a: Host,
  killing: (typeof KILLINGS)[number],
): Promise<{ parent: GuestView; left: string }> {
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    const { guest: parent } = await a.call("guest.show", { name: "web" });
    const over = { isOver: false };
    const killed = killAt(a, over, killing);
    const swapped = swap(a)
      .then(
        () => {},
        () => {},
      )
      .finally(() => (over.isOver = true));
    const isSeen = await killed;
    await swapped;
    // On a busy machine one may be over before it was looked at.
    if (!isSeen) continue;
    await a.end("SIGKILL");
    return { parent, left: swapsOf(a)[0]?.step ?? "nothing" };
  }
  throw new Error(`no swap was seen to be ${killing.at}`);
}

function swapsOf(host: Host): { step: string }[] {
  const directory = join(host.stateDirectory, "swaps");
  if (!existsSync(directory)) return [];
  const names = readdirSync(directory).filter((name) => name.endsWith(".json"));
  return names.flatMap((name) => {
    try {
      return [JSON.parse(readFileSync(join(directory, name), "utf8")) as { step: string }];
    } catch {
      // It was removed since the directory was read.
      return [];
    }
  });
}

function nameOf(host: Host, id: string): string {
  const path = join(host.stateDirectory, "guests", id, "guest.json");
  return (JSON.parse(readFileSync(path, "utf8")) as { config: { name: string } }).config.name;
}

describe("a guest on a bridge, and its isolated child", () => {
  let networks: TwoNetworks;
  let hosts: Hosts;
  let a: Host;
  before(async () => {
    networks = new TwoNetworks();
    hosts = await Hosts.start(1, {
      port: 7177,
      tls: true,
      each: () => ({
        address: networks.addresses[0],
        prefix: networks.inside(0),
        configuration: { forwardAddress: "127.0.0.1" },
      }),
    });
    a = hosts.at(0);
    await runSample(a, {
      name: "web",
      memoryMiB: 128,
      network: { mode: "tap", bridge: networks.bridge },
      append: `ip=${GUEST_ADDRESS}::10.98.0.1:255.255.255.0:web`,
    });
  });
  const clients: RoleClient[] = [];
  after(async () => {
    await endAll(clients);
    try {
      await hosts.stop();
    } finally {
      networks.close();
    }
  });

  const bridgeOf = async (name: string) => {
    const { network } = (await a.call("guest.show", { name })).guest;
    return network.mode === "tap" ? network.bridge : network.mode;
  };

  const url = `http://${GUEST_ADDRESS}`;
  /** Who is at the address now, as a client elsewhere in the network finds out. */
  async function answering(): Promise<string> {
    const client = new RoleClient(url, { mode: "anew", prefix: networks.inside(1) });
    try {
      await client.whenAnswered(1);
    } finally {
      await client.end();
    }
    return (await client.end()).turns[0]?.machine ?? "nobody";
  }
  const ports = () => networks.guestsOn(0);

  test("suspended, has no port of the bridge, and resumed is at its address again", async () => {
    const [machine, before] = [await answering(), ports()];
    await a.call("guest.suspend", { name: "web" });
    assert.deepEqual([before.length, ports()], [1, []]);
    await a.call("guest.resume", { name: "web" });
    assert.deepEqual(ports(), before, "the same device");
    assert.equal(await answering(), machine);
    await a.call("guest.fork", { name: "web", names: ["next"] });
  });

  test("exchange the bridge's port, and a client elsewhere in the network finds the other one at the same address", async (context) => {
    const prefix = networks.inside(1);
    for (const mode of ["keep", "anew"] as const) clients.push(new RoleClient(url, { mode, prefix }));
    await Promise.all(clients.map((client) => client.whenAnswered(1)));
    for (let count = 0; count < 2; count += 1) {
      const { gapUs, message } = await swap(a);
      context.diagnostic(`${gapUs} µs`);
      assert.equal(message, undefined);
      assert.deepEqual([await bridgeOf("web"), await bridgeOf("next")], [networks.bridge, undefined]);
      await Promise.all(clients.map((client) => client.whenAnswered(count + 2)));
      await sleep(realClock, 300);
    }
    for (const one of await Promise.all(clients.map((client) => client.end()))) {
      const [parent = "", child = ""] = one.turns.map(({ machine }) => machine);
      assert.notEqual(parent, child);
      assertSwapped(one, [parent, child, parent]);
    }
    assert.deepEqual(hosts.problems, []);
  });

  if (process.env["RAMET_SWAP_KILLS"] === "all")
    for (const killing of KILLINGS)
      test(`have one place each after the agent was killed ${killing.ms} ms after it was ${killing.at}`, async (context) => {
        const before = await answering();
        const { parent, left } = await dieAt(a, killing);
        await a.start();
        await eventually("it is settled", () => swapsOf(a).length === 0);
        assert.deepEqual([await bridgeOf("web"), await bridgeOf("next")], [networks.bridge, undefined]);
        const { id, message } = (await a.call("guest.show", { name: "web" })).guest;
        const machine = await answering();
        const became = id === parent.id ? "undone" : "done";
        context.diagnostic(`left ${left}; ${became}`);
        assert.deepEqual([machine === before, message], [became === "undone", undefined]);
        if (left !== "nothing") assert.equal(became, left === "moved" ? "done" : "undone");
        assert.equal(emulatorsBelow(a.stateDirectory).length, 2);
      });

  test("are refused when both are on it", async () => {
    await a.call("guest.fork", { name: "web", names: ["beside"], network: "attached" });
    await whenTransfersEnd(a);
    await assert.rejects(a.call("guest.swap", { name: "web", child: "beside" }), {
      code: "refused",
      message: /both are on the bridge br0 already/,
    });
    await removeGuest(a, "beside");
  });
});

async function endAll(clients: readonly RoleClient[]): Promise<void> {
  for (const client of clients) await client.end();
}
