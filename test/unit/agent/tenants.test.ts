import assert from "node:assert/strict";
import { test } from "node:test";
import type { Identity } from "../../../src/base/index.js";
import { codeOf, messageOf, tenantOfGuest } from "../../../src/base/index.js";
import {
  isForTenants,
  METHODS,
  type CallContext,
  type Handlers,
  type MethodName,
  type MethodOf,
} from "../../../src/control/index.js";
import { DiskError, tenantOfDisk, type Disk } from "../../../src/disk/index.js";
import { AgentError } from "../../../src/agent/errors.js";
import { noSuchGuest } from "../../../src/agent/guests/names.js";
import { forTenants } from "../../../src/agent/tenants/gate.js";
import { isShownTo } from "../../../src/agent/tenants/own.js";
import { TENANT_RULES, type RuledMethod, type TenantServices } from "../../../src/agent/tenants/rules.js";
import { noSuchTransfer } from "../../../src/agent/transfers/transfer-book.js";
import type { TransferEntry } from "../../../src/agent/transfers/transfer-entry.js";

/** What a call may name: something that is, or is not, its tenant's. */
interface Named {
  guest: string;
  second: string;
  transfer: number;
  migration: number;
  disk: string;
}

/** A forward as the schema gives it. */
const forward = (hostPort: number, address = "127.0.0.1") => ({ address, hostPort, guestPort: 80 });

/** The disks' names are told from each other by their last digit. */
const diskOf = (digit: number) => `00000000-0000-4000-8000-00000000000${digit}`;

const OWN: Named = { guest: "web@acme", second: "db@acme", transfer: 11, migration: 12, disk: diskOf(1) };
const OTHERS: Named = {
  guest: "web@rival",
  second: "db@rival",
  transfer: 21,
  migration: 22,
  disk: diskOf(2),
};
const HOSTS: Named = { guest: "web", second: "db", transfer: 31, migration: 32, disk: diskOf(3) };
const NOBODYS: Named = { guest: "no@acme", second: "one@acme", transfer: 41, migration: 42, disk: diskOf(4) };
const THERE = [OWN, OTHERS, HOSTS];

/** Parameters of every method for tenants. One that is not here does not compile. */
const SAMPLES: { readonly [Name in RuledMethod]: (named: Named) => object } = {
  "guest.list": () => ({}),
  "guest.run": ({ guest: name }) => ({
    name,
    disks: [{ image: "debian-12" }, { parent: OWN.disk }],
    network: { mode: "none" },
  }),
  "guest.show": ({ guest: name }) => ({ name }),
  "guest.stop": ({ guest: name }) => ({ name }),
  "guest.kill": ({ guest: name }) => ({ name }),
  "guest.freeze": ({ guest: name }) => ({ name }),
  "guest.thaw": ({ guest: name }) => ({ name }),
  "guest.exchange": ({ guest: name }) => ({ name }),
  "guest.suspend": ({ guest: name }) => ({ name }),
  "guest.resume": ({ guest: name }) => ({ name }),
  "guest.remove": ({ guest: name }) => ({ name }),
  "guest.logs": ({ guest: name }) => ({ name }),
  "guest.console.open": ({ guest: name }) => ({ name }),
  "guest.console.input": () => ({ console: 1, data: new Uint8Array(1) }),
  "guest.console.close": () => ({ console: 1 }),
  "guest.swap": ({ guest: name, second: child }) => ({ name, child }),
  "guest.fork": ({ guest: name }) => ({
    name,
    to: ["hostb", "hosta"],
    names: ["one", "two"],
    forwards: [],
  }),
  "emulator.list": () => ({}),
  "exchange.show": () => ({}),
  "image.list": () => ({}),
  "image.show": () => ({ reference: "debian-12" }),
  "image.verify": () => ({ reference: "debian-12" }),
  "image.remove": () => ({ reference: "debian-12" }),
  "disk.list": () => ({}),
  "disk.chain": ({ disk }) => ({ disk }),
  "disk.loans": () => ({}),
  "disk.flatten": ({ guest }) => ({ guest }),
  "disk.commit": ({ guest }) => ({ guest }),
  "transfer.list": () => ({}),
  "transfer.show": ({ transfer }) => ({ transfer }),
  "transfer.cancel": ({ transfer }) => ({ transfer }),
  "transfer.sweep": ({ transfer }) => ({ transfer, sweep: "held" }),
  "transfer.steer": ({ transfer }) => ({ transfer, priority: "low" }),
  "transfer.run": ({ transfer }) => ({ transfer }),
  "peer.list": () => ({}),
};

/** Those that name nothing, or what the connection or the tenant itself has. */
const NAMELESS =
  /^(guest\.list|guest\.console\.(input|close)|emulator\.list|exchange\.show|image\..*|disk\.(list|loans)|transfer\.list|peer\.list)$/;

const clientMethods = (Object.keys(METHODS) as MethodName[]).filter(
  (name): name is MethodOf<"client"> => METHODS[name].role === "client",
);

/** A host with guests, disks and transfers of two tenants and of its own. */
class World {
  readonly calls: { method: string; params: Record<string, unknown> }[] = [];
  readonly services: TenantServices;
  readonly handlers: Handlers<"client">;

  /** @param network what the host gives tenants' guests. @param confines whether it keeps emulators apart. */
  constructor(
    readonly network: "none" | "user" = "none",
    readonly confines = true,
  ) {
    const entries = THERE.flatMap(({ guest, transfer, migration }) => [
      { transfer, guest, kind: "fork", host: "hostb" },
      { transfer: migration, guest, kind: "migrate", host: "hostb" },
    ]) as unknown as TransferEntry[];
    const find = (id: string) => {
      const owner = THERE.find(({ disk }) => disk === id);
      const tenant = owner && tenantOfGuest(owner.guest);
      return owner === undefined
        ? undefined
        : ({ id, ...(tenant === "default" ? {} : { tenant }) } as unknown as Disk);
    };
    this.services = {
      book: {
        active: entries,
        find: (transfer) => {
          const entry = entries.find((each) => each.transfer === transfer);
          if (entry === undefined) throw noSuchTransfer(transfer);
          return entry;
        },
      },
      peers: { resolve: (host) => `wss://${host}:7070` },
      configuration: { name: "hosta", peers: { hostb: "wss://hostb:7070" }, tenantNetwork: this.network },
      isolation: { confines: this.confines },
      disks: {
        store: {
          find,
          get: (id, tenant) => {
            const disk = find(id);
            if (disk !== undefined && (tenant === undefined || tenantOfDisk(disk) === tenant)) return disk;
            throw new DiskError("no-such-disk", `the tenant ${tenant} has no disk ${id} on this host`);
          },
        },
      },
    };
    const names = clientMethods.filter((name) => name !== "events.subscribe");
    this.handlers = Object.fromEntries(
      names.map((method) => [method, (params: Record<string, unknown>) => this.#answer(method, params)]),
    ) as unknown as Handlers<"client">;
  }

  /** As the agent would: all it has, and nothing of a guest that it has not. */
  async #answer(method: string, params: Record<string, unknown>): Promise<object> {
    this.calls.push({ method, params });
    const guests = THERE.flatMap(({ guest, second }) => [guest, second]);
    for (const key of ["name", "child", "guest"]) {
      const name = params[key] as string | undefined;
      if (name !== undefined && !guests.includes(name)) throw noSuchGuest(name);
    }
    const views = guests.map((name) => ({ name }));
    const running = { path: "/usr/bin/qemu-system-x86_64", guests };
    const gone = THERE.map(({ guest }) => ({ version: `of ${guest}`, guests: [guest] }));
    const lists: Record<string, object> = {
      "guest.list": { guests: views },
      "exchange.show": { run: { phase: "done", guests: views } },
      "emulator.list": { emulators: [running, ...gone] },
      "disk.list": { disks: THERE.map(({ disk, guest }) => ({ id: disk, guest })) },
      "disk.loans": { loans: THERE.map(({ disk }) => ({ disk, transfer: 1, host: "CN=hostb" })) },
      "transfer.list": { transfers: THERE.map(({ transfer, guest }) => ({ id: transfer, guest })) },
      "peer.list": {
        peers: [
          { address: "wss://hostb:7070", name: "hostb", transfers: 6 },
          { address: "wss://198.51.100.7:7070", transfers: 3 },
        ],
      },
      "guest.fork": { transfers: [{ guest: params.name }] },
    };
    return Promise.resolve(lists[method] ?? { of: params });
  }

  call(method: string, params: object, identity: Partial<Identity>): Promise<object> {
    const context = {
      session: { identity: { kind: "certificate", name: "CN=alice", roles: ["admin"], ...identity } },
    } as unknown as CallContext;
    const gated = forTenants(this.handlers, this.services) as unknown as Record<
      string,
      (params: object, context: CallContext) => Promise<object>
    >;
    return (gated[method] as (params: object, context: CallContext) => Promise<object>)(params, context);
  }
}

const acme = { tenant: "acme" };

/** All that a text says of what is not acme's. */
function foreignIn(value: unknown): string[] {
  const text = JSON.stringify(value) ?? "";
  const words = [...[OTHERS, HOSTS].flatMap(Object.values), "rival", "198.51.100.7"].map(String);
  return words.filter((word) => new RegExp(`(^|[^\\w@-])${word}($|[^\\w@-])`).test(text));
}

async function refusalOf(calling: Promise<object>): Promise<{ code: string; message: string }> {
  try {
    await calling;
  } catch (error) {
    return { code: codeOf(error), message: messageOf(error) };
  }
  assert.fail("it was not refused");
}

test("every command is decided on: a tenant's holder is refused it, or has a rule for it", async () => {
  const ruled = clientMethods.filter((name) => isForTenants(name) && name !== "events.subscribe");
  assert.deepEqual(Object.keys(TENANT_RULES).sort(), [...ruled].sort());
  for (const method of clientMethods.filter((name) => !isForTenants(name))) {
    const world = new World();
    const { code, message } = await refusalOf(
      world.call(method, { name: OWN.guest, guest: OWN.guest }, acme),
    );
    assert.equal(code, "forbidden", method);
    assert.match(message, /is not for tenants/);
    assert.deepEqual(world.calls, [], method);
  }
});

test("whatever a tenant's holder calls, nothing of another's reaches it, and nothing it names is another's", async () => {
  for (const [method, sample] of Object.entries(SAMPLES)) {
    const world = new World();
    const result = await world.call(method, sample(OWN), acme);
    assert.deepEqual(foreignIn(result), [], method);
    if (/\.list$|^exchange\.show$/.test(method) && method !== "image.list")
      assert.match(JSON.stringify(result), /web@acme|"id":11|hostb|0001"/, `${method} shows what is its own`);
    assert.equal(world.calls.length, 1, method);
    assert.deepEqual(foreignIn(world.calls), [], method);
    // Plain names are the tenant's own.
    const plain = { ...OWN, guest: "web", second: "db" };
    const same = await world.call(method, sample(plain), acme);
    assert.deepEqual(same, result, method);
    assert.deepEqual(world.calls[1], world.calls[0], method);
  }
});

test("what another tenant has is answered in the words for what is not there, and not looked for", async () => {
  for (const [method, sample] of Object.entries(SAMPLES)) {
    if (NAMELESS.test(method)) continue;
    const missing = await refusalOf(new World().call(method, sample(NOBODYS), acme));
    assert.match(missing.code, /^no-such-(guest|disk|transfer)$/, method);
    for (const foreign of [OTHERS, { ...HOSTS, guest: "web@other", second: "db@other" }]) {
      const world = new World();
      const refusal = await refusalOf(world.call(method, sample(foreign), acme));
      assert.equal(refusal.code, missing.code, method);
      const blank = (text: string, named: Named) =>
        Object.values(named).reduce((left: string, value) => left.replaceAll(String(value), "X"), text);
      assert.equal(blank(refusal.message, foreign), blank(missing.message, NOBODYS), method);
      assert.deepEqual(world.calls, [], `${method} was carried out`);
    }
  }
  // Of two guests, the second one alone may be another's.
  const swap = new World().call("guest.swap", { name: "web", child: OTHERS.second }, acme);
  assert.equal((await refusalOf(swap)).code, "no-such-guest");
  const fork = new World().call(
    "guest.fork",
    { name: "web", to: [], forwards: [], names: ["x@rival"] },
    acme,
  );
  assert.equal((await refusalOf(fork)).code, "no-such-guest");
});

test("without a tenant in the certificate, commands are carried out as they are", async () => {
  for (const method of clientMethods.filter((name) => name !== "events.subscribe")) {
    const world = new World();
    const result = await world.call(method, {}, {});
    assert.deepEqual(result, await world.handlers[method]({} as never, {} as never), method);
    world.calls.pop();
    assert.deepEqual(world.calls, [{ method, params: {} }]);
  }
});

test("a tenant's fork goes to peers by their names, and a tenant is not before others", async () => {
  const fork = (change: object) =>
    refusalOf(new World().call("guest.fork", { name: "web", to: [], forwards: [], ...change }, acme));
  for (const host of ["198.51.100.7:7070", "wss://hostb:7070", "localhost:22", "hostc"])
    assert.equal((await fork({ to: [host] })).code, "forbidden", host);
  assert.equal((await fork({ priority: "high" })).code, "forbidden");
  const steered = new World().call("transfer.steer", { transfer: 11, priority: "high" }, acme);
  assert.equal((await refusalOf(steered)).code, "forbidden");
});

test("a tenant's guest is run with nothing of the host's", async () => {
  const plain = { name: "web", disks: [{ image: "debian-12" }], network: { mode: "none" } };
  const world = new World();
  await world.call("guest.run", plain, acme);
  assert.deepEqual(world.calls, [{ method: "guest.run", params: { ...plain, name: "web@acme" } }]);
  for (const [what, change] of Object.entries({
    "/boot/vmlinuz": { kernel: "/boot/vmlinuz" },
    "/etc/shadow": { initrd: "/etc/shadow" },
    "from=hostb": { disks: [{ image: "debian-12" }, { image: "debian-12", from: "hostb" }] },
    "a tap interface": { network: { mode: "tap", bridge: "br0" } },
    "port 1023": { network: { mode: "user", forwards: [forward(8080), forward(1023)] } },
    "the address 0.0.0.0": { network: { mode: "user", forwards: [forward(8080, "0.0.0.0")] } },
    "a guest with a network": { network: { mode: "user", forwards: [forward(8080)] } },
  })) {
    const refusal = await refusalOf(world.call("guest.run", { ...plain, ...change }, acme));
    assert.equal(refusal.code, "forbidden", what);
    assert.ok(refusal.message.startsWith(what), refusal.message);
  }
  const fork = { name: "web", to: [], forwards: [] };
  for (const change of [
    { forwards: [forward(80)] },
    { forwards: [forward(8080)] },
    { network: "attached" },
  ]) {
    const refusal = await refusalOf(world.call("guest.fork", { ...fork, ...change }, acme));
    assert.equal(refusal.code, "forbidden", JSON.stringify(change));
  }
  assert.equal(world.calls.length, 1);
});

test("a tenant's guest has a network where the host gives it one", async () => {
  const world = new World("user");
  const network = { mode: "user", forwards: [forward(8080)] };
  await world.call("guest.run", { name: "web", disks: [], network }, acme);
  await world.call("guest.fork", { name: "web", to: [], forwards: [forward(8081)] }, acme);
  assert.deepEqual(
    world.calls.map(({ method }) => method),
    ["guest.run", "guest.fork"],
  );
});

test("a host that does not keep emulators apart runs no tenant's guests", async () => {
  const world = new World("user", false);
  const run = { name: "web", disks: [], network: { mode: "none" } };
  for (const call of [
    world.call("guest.run", run, acme),
    world.call("guest.fork", { name: "web", to: [], forwards: [] }, acme),
  ])
    assert.match((await refusalOf(call)).message, /does not keep emulators apart/);
  assert.equal(world.calls.length, 0);
  await world.call("guest.run", run, {});
  assert.equal(world.calls.length, 1, "who runs the host may");
});

test("a migration of its guest a tenant sees, and leaves to who has begun it", async () => {
  const world = new World();
  await world.call("transfer.show", { transfer: OWN.migration }, acme);
  for (const method of ["transfer.cancel", "transfer.sweep", "transfer.steer", "transfer.run"]) {
    const { code, message } = await refusalOf(world.call(method, { transfer: OWN.migration }, acme));
    assert.equal(code, "forbidden");
    assert.match(message, /is a migration/);
    const other = await refusalOf(world.call(method, { transfer: OTHERS.migration }, acme));
    assert.equal(other.code, "no-such-transfer");
  }
});

test("a tenant is told that there is no room, and not what others take of it", async () => {
  for (const code of ["no-room", "too-many-guests"] as const) {
    const world = new World();
    const error = new AgentError(code, "this host has 12 guests and 4096 MiB are taken");
    Object.assign(world.handlers, {
      "guest.resume": () => Promise.reject(error),
      "guest.fork": () =>
        Promise.resolve({ transfers: [{ guest: "web-1@acme", error: { code, message: error.message } }] }),
    });
    const refusal = await refusalOf(world.call("guest.resume", { name: "web" }, acme));
    assert.equal(refusal.code, code);
    assert.doesNotMatch(refusal.message, /\d/);
    const forked = await world.call("guest.fork", { name: "web", to: [], forwards: [] }, acme);
    assert.doesNotMatch(JSON.stringify(forked), /4096/);
    assert.equal(
      messageOf(await world.call("guest.resume", { name: "web" }, {}).catch((thrown: unknown) => thrown)),
      error.message,
    );
  }
});

test("events are for those whose guest they are of, and for who runs the host", () => {
  const holder = (tenant?: string): Identity => ({
    kind: "certificate",
    name: "CN=alice",
    roles: ["observe"],
    ...(tenant === undefined ? {} : { tenant }),
  });
  for (const name of ["web", "web@acme", "web@rival"]) {
    assert.ok(isShownTo(holder(), name));
    assert.equal(isShownTo(holder("acme"), name), name === "web@acme");
    assert.equal(isShownTo(holder("default"), name), name === "web");
  }
});
