import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { realClock, silentLog } from "../../../src/base/index.js";
import { EventHub } from "../../../src/agent/events.js";
import type { GuestRecord } from "../../../src/agent/guests/guest-record.js";
import type { GuestRegistry } from "../../../src/agent/guests/registry.js";
import { exchanged, requireExchangeable, type Role } from "../../../src/agent/swap/roles.js";
import { restoreSwaps } from "../../../src/agent/swap/settle-swaps.js";
import { swapGuests } from "../../../src/agent/swap/swap-guests.js";
import { SwapFile } from "../../../src/agent/swap/swap-record.js";
import { Swaps } from "../../../src/agent/swap/swaps.js";
import type { Services } from "../../../src/agent/services.js";
import { TransferBook } from "../../../src/agent/transfers/transfer-book.js";
import { FakeHost } from "./fake-host.js";
import { FakeEmulator, fakeRecord } from "./fakes.js";

const MAC = "52:54:00:00:00:07";
const PORT = 47_111;
const NEXT_PORT = 47_112;

type Network = Role["network"];

const user = (...ports: number[]): Network => ({
  mode: "user",
  mac: MAC,
  forwards: ports.map((hostPort) => ({ host: "127.0.0.1", hostPort, guestPort: 80, protocol: "tcp" })),
});
const tap = (name: string, bridge?: string): Network => ({
  mode: "tap",
  mac: MAC,
  tap: name,
  ...(bridge === undefined ? {} : { bridge }),
});
const role = (name: string, network: Network, attached = true): Role => ({
  id: randomUUID(),
  name,
  network,
  attached,
});

describe("roles", () => {
  test("of two guests are exchanged, and each keeps its device", () => {
    const [web, next] = [role("web", tap("ramet1", "br0")), role("next", tap("ramet2"), false)];
    const [after, production] = exchanged([web, next]);
    assert.deepEqual(after, { id: web.id, name: "next", network: tap("ramet1"), attached: false });
    assert.deepEqual(production, { id: next.id, name: "web", network: tap("ramet2", "br0"), attached: true });
    assert.deepEqual(exchanged([after, production]), [web, next], "the same again takes it back");
  });

  test("that lie in different networks are refused with the reason", () => {
    const refused = (one: Network, other: Network, message: RegExp): void =>
      assert.throws(() => requireExchangeable(role("web", one), role("next", other)), {
        code: "refused",
        message,
      });
    refused(user(PORT), { mode: "isolated", mac: MAC }, /next was started apart.*fork with --forward/);
    refused(user(PORT), tap("ramet2"), /web has user networking, and next has a tap device$/);
    refused(user(PORT), { mode: "none" }, /next has no network device/);
    refused(
      user(PORT),
      { ...user(NEXT_PORT), mac: "52:54:00:00:00:08" } as Network,
      /not guests of one fork/,
    );
    refused(tap("ramet1", "br0"), tap("ramet2", "br0"), /both are on the bridge br0 already/);
    refused(tap("ramet1"), tap("ramet2"), /both are on no bridge/);
    requireExchangeable(role("web", { mode: "none" }), role("next", { mode: "none" }));
    requireExchangeable(role("web", tap("ramet1", "br0")), role("next", tap("ramet2")));
  });
});

/** The ports of one machine: one process listens at each. */
class Ports {
  readonly taken = new Map<number, PortEmulator>();
  /** Acts on emulators that are left before the agent dies; what it would do then never happens. */
  actsLeft = Number.POSITIVE_INFINITY;

  async act(): Promise<void> {
    this.actsLeft -= 1;
    if (this.actsLeft < 0) await new Promise<never>(() => {});
  }
}

class PortEmulator extends FakeEmulator {
  readonly #ports: Ports;
  /** Ports this one cannot have. */
  readonly refuses = new Set<number>();

  constructor(ports: Ports, ...own: number[]) {
    super();
    this.#ports = ports;
    this.state = "running";
    for (const port of own) ports.taken.set(port, this);
  }

  override async addForward({ hostPort }: { hostPort: number }): Promise<void> {
    await this.#ports.act();
    if (this.#ports.taken.has(hostPort) || this.refuses.has(hostPort)) throw failed("taken");
    this.#ports.taken.set(hostPort, this);
  }

  override async removeForward({ hostPort }: { hostPort: number }): Promise<void> {
    await this.#ports.act();
    if (this.#ports.taken.get(hostPort) !== this) throw failed("not found");
    this.#ports.taken.delete(hostPort);
  }
}

function failed(message: string): Error {
  return Object.assign(new Error(message), { code: "command-failed" });
}

/** Two guests of one fork on a host, and the agents that follow each other there. */
class Pair {
  readonly ports = new Ports();
  readonly host: FakeHost;
  readonly web: PortEmulator;
  readonly next: PortEmulator;
  readonly webId: string;
  readonly nextId: string;
  services: Services;

  private constructor(host: FakeHost, records: { web: GuestRecord; next: GuestRecord }) {
    this.host = host;
    this.web = new PortEmulator(this.ports, PORT);
    this.next = new PortEmulator(this.ports, NEXT_PORT);
    this.webId = records.web.config.id;
    this.nextId = records.next.config.id;
    this.services = this.#servicesOf(undefined as unknown as GuestRegistry);
  }

  static async make(): Promise<Pair> {
    const host = await FakeHost.make();
    const web = fakeRecord({ config: { network: user(PORT) } });
    const next = fakeRecord({ config: { name: "next", network: user(NEXT_PORT) } });
    const { id } = web.config;
    const parent = { guest: "web", host: "here", id, transfer: 7, kind: "fork" as const, complete: true };
    const pair = new Pair(host, { web, next });
    await host.leave(web, { emulator: pair.web });
    await host.leave({ ...next, parent }, { emulator: pair.next });
    await pair.start();
    return pair;
  }

  /** The next agent, which finds what the last one left. */
  async start(): Promise<void> {
    this.ports.actsLeft = Number.POSITIVE_INFINITY;
    await this.host.open(3, async (registry) => {
      this.services = this.#servicesOf(registry);
      await restoreSwaps(this.services);
    });
  }

  swap() {
    return swapGuests(this.services, { name: "web", child: "next" });
  }

  /** Every name, port and record is somebody's, and fits. @returns whether the child has production. */
  async isWhole(): Promise<boolean> {
    const { registry } = this.services;
    const production = registry.find("web");
    const other = registry.find("next");
    assert.deepEqual(new Set([production.id, other.id]), new Set([this.webId, this.nextId]));
    const isSwapped = production.id === this.nextId;
    const [main, second] = isSwapped ? [this.next, this.web] : [this.web, this.next];
    assert.deepEqual(
      this.ports.taken,
      new Map([
        [PORT, main],
        [NEXT_PORT, second],
      ] as const),
    );
    assert.deepEqual([production.config.network, other.config.network], [user(PORT), user(NEXT_PORT)]);
    assert.equal(registry.byId(this.nextId)?.record.parent?.guest, isSwapped ? "next" : "web");
    await Promise.all([production.saved(), other.saved()]);
    assert.deepEqual(readdirSync(this.host.paths.swaps), []);
    assert.deepEqual([production.occupation, other.occupation], [undefined, undefined]);
    return isSwapped;
  }

  #servicesOf(registry: GuestRegistry): Services {
    const parts = {
      registry,
      swaps: new Swaps(),
      paths: this.host.paths,
      configuration: { name: "here" },
      book: new TransferBook({ events: new EventHub(), clock: realClock }),
      clock: realClock,
      log: silentLog,
    };
    return parts as unknown as Services;
  }
}

describe("two guests of one fork", () => {
  const pairs: Pair[] = [];
  const makePair = async (): Promise<Pair> => {
    const pair = await Pair.make();
    pairs.push(pair);
    return pair;
  };
  after(async () => {
    for (const { host } of pairs) await host.remove();
  });

  test("exchange names and ports, there and back", async () => {
    const pair = await makePair();
    const { guest, other, message } = await pair.swap();
    assert.deepEqual([guest.name, guest.id, other.name, message], ["web", pair.nextId, "next", undefined]);
    assert.equal(await pair.isWhole(), true);
    await pair.start();
    assert.equal(await pair.isWhole(), true, "the next agent knows them so");
    await pair.swap();
    assert.equal(await pair.isWhole(), false);
  });

  test("have one role each after the agent has died before any act", async () => {
    const pair = await makePair();
    let crashes = 0;
    const outcomes = new Set<boolean>();
    for (let acts = 0; ; acts += 1) {
      pair.ports.actsLeft = acts;
      const done = await Promise.race([pair.swap().then(() => true), died(pair)]);
      if (done) {
        // Nobody waits for its death any more.
        pair.ports.actsLeft = -1;
        break;
      }
      crashes += 1;
      await pair.start();
      outcomes.add(await pair.isWhole());
    }
    // Each port is taken from one and given to the other.
    assert.equal(crashes, 4);
    assert.deepEqual(outcomes, new Set([false]), "nothing is moved before all is");
    assert.equal(await pair.isWhole(), true);
  });

  test("have one role each after the agent has died with the ports moved, whatever of the names was on disk", async () => {
    for (const saved of [[], ["web"], ["next"], ["web", "next"]]) {
      const pair = await makePair();
      const { registry } = pair.services;
      const before = [registry.find("web"), registry.find("next")] as const;
      const roles = before.map(({ id, name, config, record: { attached } }) => {
        return { id, name, network: config.network, attached };
      }) as [Role, Role];
      const file = new SwapFile(pair.host.paths.swaps, { before: roles, step: "moving" });
      await file.write("moved");
      for (const guest of before) {
        if (!saved.includes(guest.name)) continue;
        const after = file.after.find(({ id }) => id === guest.id) as Role;
        await guest.update({ role: { name: after.name, network: after.network, attached: after.attached } });
      }
      await pair.start();
      assert.equal(await pair.isWhole(), true, `${saved.join(" and ")} saved`);
    }
  });

  test("of which one has ended with its agent: the other one has production", async () => {
    for (const ended of ["web", "next"] as const) {
      const pair = await makePair();
      pair.ports.actsLeft = 1;
      assert.equal(await Promise.race([pair.swap(), died(pair)]), false);
      const id = ended === "web" ? pair.webId : pair.nextId;
      for (const [port, emulator] of pair.ports.taken)
        if (emulator === pair[ended]) pair.ports.taken.delete(port);
      pair.host.source.running.delete(id);
      await pair.start();
      const living = ended === "web" ? "next" : "web";
      assert.equal(pair.services.registry.find("web").id, living === "next" ? pair.nextId : pair.webId);
      assert.equal(pair.ports.taken.get(PORT), pair[living]);
      assert.deepEqual(readdirSync(pair.host.paths.swaps), []);
    }
  });

  test("have what they had when the child cannot have a port", async () => {
    const pair = await makePair();
    pair.next.refuses.add(PORT);
    await assert.rejects(pair.swap(), {
      code: "swap-failed",
      message: /web and next could not exchange.*taken.*both have the roles they had/,
    });
    assert.equal(await pair.isWhole(), false);
  });

  test("are exchanged even when the parent cannot have the child's port, which is said", async () => {
    const pair = await makePair();
    pair.web.refuses.add(NEXT_PORT);
    const { message, other } = await pair.swap();
    assert.match(message ?? "", /next runs, but not at its place in the network: taken/);
    assert.equal(other.id, pair.webId);
    assert.equal(pair.services.registry.byId(pair.webId)?.record.message, message);
    pair.web.refuses.clear();
    await pair.swap();
    assert.equal(await pair.isWhole(), false, "and the way back is open");
    assert.equal(pair.services.registry.byId(pair.webId)?.record.message, undefined, "it lacks nothing now");
  });

  test("whose way back is barred are tried again before they are swapped again", async () => {
    const pair = await makePair();
    pair.next.refuses.add(PORT);
    pair.web.refuses.add(PORT);
    await assert.rejects(pair.swap(), { code: "swap-failed", message: /could not be taken back: taken/ });
    assert.equal(pair.ports.taken.has(PORT), false);
    pair.next.refuses.clear();
    pair.web.refuses.clear();
    await pair.swap();
    assert.equal(await pair.isWhole(), true);
    assert.equal(pair.services.registry.byId(pair.webId)?.record.message, undefined);
  });

  test("are refused while one of them is busy, paused or on its way, or when the agent ends", async () => {
    const pair = await makePair();
    const { registry, swaps } = pair.services;
    const next = registry.find("next");
    const leave = next.occupy({ what: "a fork", transfers: [7] });
    await assert.rejects(pair.swap(), { code: "busy" });
    leave();
    for (const [state, code] of [
      ["paused", "bad-state"],
      ["frozen", "bad-state"],
      ["receiving", "not-ready"],
      ["migrated", "not-ready"],
    ] as const) {
      await next.update({ state });
      await assert.rejects(pair.swap(), { code }, state);
    }
    await next.update({ state: "running", outgoing: { transfer: 7, host: "b" } });
    await assert.rejects(pair.swap(), { code: "not-ready" });
    await next.update({ outgoing: null });
    pair.next.state = "paused";
    await assert.rejects(pair.swap(), { code: "bad-state", message: /its emulator is paused/ });
    pair.next.state = "running";
    await swaps.end();
    await assert.rejects(pair.swap(), { code: "draining" });
    assert.equal(await pair.isWhole(), false);
  });
});

/** False, when the agent has no act left and hangs at the next one. */
async function died({ ports }: Pair): Promise<boolean> {
  while (ports.actsLeft >= 0) await new Promise<void>((resolve) => setImmediate(resolve));
  return false;
}

describe("a swap's record", () => {
  let host: FakeHost;
  before(async () => (host = await FakeHost.make()));
  after(() => host.remove());

  test("that cannot be read is left, and what was not finished being written is removed", async () => {
    const { swaps } = host.paths;
    const file = new SwapFile(swaps, {
      before: [role("web", user(PORT)), role("next", user())],
      step: "moving",
    });
    await file.write("moving");
    const bad = `${randomUUID()}.json`;
    writeFileSync(join(swaps, bad), '{"version":1,"step":"done"}');
    writeFileSync(`${file.path}.0123.unfinished`, "{");
    const problems: string[] = [];
    const log = { ...silentLog, error: (fields: { problem: string }) => problems.push(fields.problem) };
    await host.open(3, async (registry) => {
      const parts = {
        registry,
        swaps: new Swaps(),
        paths: host.paths,
        configuration: { name: "here" },
        clock: realClock,
      };
      await restoreSwaps({ ...parts, log } as unknown as Services);
    });
    assert.match(problems.join(), /is not a swap's record of this version/);
    // Of guests that are not here any more nothing is to be settled.
    while (readdirSync(swaps).length > 1) await new Promise<void>((resolve) => setImmediate(resolve));
    assert.deepEqual(readdirSync(swaps), [bad]);
  });
});
