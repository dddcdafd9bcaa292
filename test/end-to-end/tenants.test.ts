import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { codeOf, messageOf } from "../../src/base/index.js";
import type { MethodName, ParamsInput } from "../../src/control/index.js";
import { writeBootImage } from "../support/boot-image.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { TenantClient } from "../support/tenant-client.js";

const NOW = { unusedForMs: 0 };

/** Guests of a megabyte of disk, with nothing that names the host. */
const RUN = { memoryMiB: 64, disks: [{ image: "base" }] };

describe("two tenants on the same hosts, over the same base disk", () => {
  let scratch: string;
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  let acme: TenantClient;
  let rival: TenantClient;
  const all: TenantClient[] = [];
  /** What acme has: its frozen layer, its transfer and an image that nobody else has. */
  let layer: string;
  let transfer: number;
  let secret: string;
  let base: string;

  const open = async (host: Host, name: string, tenant: string): Promise<TenantClient> => {
    const client = await TenantClient.open(hosts, host, { name, tenant, roles: ["operate"] });
    all.push(client);
    return client;
  };

  before(async () => {
    scratch = mkdtempSync(join(tmpdir(), "rt-"));
    hosts = await Hosts.start(2, { tls: true });
    [a, b] = [hosts.at(0), hosts.at(1)];
    const path = writeBootImage(join(scratch, "base"), "the base disk");
    for (const tenant of ["acme", "rival"])
      base = (await a.call("image.import", { path, identifier: "base", tenant })).image.digest;
    const other = writeBootImage(join(scratch, "secret"), "acme's own");
    secret = (await a.call("image.import", { path: other, identifier: "secret", tenant: "acme" })).image
      .digest;
    [acme, rival] = await Promise.all([open(a, "alice", "acme"), open(a, "bob", "rival")]);
    for (const client of [acme, rival]) await client.call("events.subscribe", {});
  });

  after(async () => {
    for (const client of all) client.close();
    await hosts.stop();
    rmSync(scratch, { recursive: true, force: true });
  });

  const consoleOf = async (client: TenantClient, name: string): Promise<string> =>
    (await client.call("guest.logs", { name, source: "console" })).lines.join("\n");

  /** Types on a guest's console until the guest repeats it. */
  async function type(client: TenantClient, name: string, text: string): Promise<void> {
    const { console: number } = await client.call("guest.console.open", { name });
    await client.call("guest.console.input", { console: number, data: Buffer.from(text) });
    await eventually(`${name} says ${text}`, async () => (await consoleOf(client, name)).includes(text));
    await client.call("guest.console.close", { console: number });
  }

  /** How a command is refused, with what was named left out. */
  async function refusalOf<Name extends MethodName>(
    client: TenantClient,
    method: Name,
    params: ParamsInput<Name>,
    named: string | number,
  ): Promise<string> {
    try {
      await client.call(method, params);
    } catch (error) {
      return `${codeOf(error)}: ${messageOf(error).replaceAll(String(named), "…")}`;
    }
    assert.fail(`${method} of ${named} was not refused`);
  }

  test("each runs a guest of the same name, which boots from its disk", async () => {
    const [mine, theirs] = await Promise.all(
      [acme, rival].map((client) => client.call("guest.run", { ...RUN, name: "web" })),
    );
    assert.deepEqual([mine?.guest.name, theirs?.guest.name], ["web@acme", "web@rival"]);
    assert.equal(mine?.guest.kernel, undefined);
    for (const client of [acme, rival])
      await eventually("it has booted", async () =>
        (await consoleOf(client, "web")).includes("the base disk"),
      );
    await type(acme, "web", "of-acme");
    await type(rival, "web@rival", "of-rival");
    for (const change of [
      { kernel: "/boot/vmlinuz" },
      { network: { mode: "tap" as const, bridge: "br0" } },
      { network: { mode: "user" as const, forwards: ["80:80"] } },
      { disks: [{ image: "base", from: "b" }] },
    ])
      await assert.rejects(acme.call("guest.run", { ...RUN, name: "bad", ...change }), { code: "forbidden" });
  });

  test("children are their parent's tenant's, on its host and on another", async () => {
    await acme.call("guest.fork", { name: "web", names: ["here"] });
    const { transfers } = await acme.call("guest.fork", { name: "web", to: ["b"] });
    transfer = transfers[0]?.transfer ?? 0;
    assert.equal(transfers[0]?.guest, "web-1@acme");
    await type(acme, "here", "child-here");
    const there = await open(b, "alice", "acme");
    await type(there, "web-1", "child-there");
    assert.match(await consoleOf(there, "web-1"), /child-there/);
    await eventually("all of it is there", async () => {
      const { guest } = await there.call("guest.show", { name: "web-1" });
      return (
        guest.state === "running" &&
        guest.disks?.[0]?.chain.every((each) => each.arriving === undefined) === true
      );
    });
    assert.deepEqual(
      (await there.call("image.list", {})).images.map(({ digest, isUsed }) => [digest, isUsed]),
      [[base, true]],
      "and so is the base disk it stands on",
    );
    layer = (await acme.call("disk.list", {})).disks.find(({ frozen }) => frozen)?.id ?? "";
    await assert.rejects(acme.call("guest.fork", { name: "web", to: [b.url] }), { code: "forbidden" });
    await assert.rejects(acme.call("guest.migrate", { name: "web", to: "b" }), { code: "forbidden" });
    for (const name of ["web@acme", "here@acme"])
      assert.ok((await a.guests()).has(name), "the host's own see them");
  });

  test("neither sees anything of the other's", async () => {
    const { disks } = await acme.call("disk.list", {});
    assert.ok(disks.length >= 3 && layer !== "");
    const elsewhere = await open(b, "bob", "rival");
    const seen = [
      ...(await Promise.all([
        rival.call("guest.list", {}),
        rival.call("disk.list", {}),
        rival.call("disk.loans", {}),
        rival.call("transfer.list", {}),
        rival.call("emulator.list", {}),
        rival.call("exchange.show", {}),
        rival.call("image.list", {}),
        rival.call("peer.list", {}),
        elsewhere.call("guest.list", {}),
        elsewhere.call("disk.list", {}),
        elsewhere.call("transfer.list", {}),
        elsewhere.call("image.list", {}),
        consoleOf(rival, "web"),
        rival.call("guest.logs", { name: "web" }),
      ])),
      rival.events,
    ];
    const text = JSON.stringify(seen);
    assert.match(text, /web@rival/);
    for (const foreign of ["acme", "here@", "child-", secret, String(transfer), ...disks.map(({ id }) => id)])
      assert.ok(!text.includes(foreign), `${foreign} is seen in ${text}`);
    assert.ok(
      rival.events.some(({ event }) => event === "guest") &&
        acme.events.some(({ event }) => event === "transfer"),
    );
    assert.ok(!JSON.stringify(acme.events).includes("rival"));
    for (const method of [
      "agent.info",
      "agent.audit",
      "image.stored",
      "image.prune",
      "disk.release",
    ] as const)
      await assert.rejects(rival.call(method, NOW), { code: "forbidden" });
  });

  test("what the other has is answered as what is not there, whatever is tried", async () => {
    const names = [
      "guest.show",
      "guest.kill",
      "guest.remove",
      "guest.logs",
      "guest.console.open",
      "guest.fork",
    ] as const;
    for (const method of [...names, "guest.stop", "guest.freeze", "guest.suspend", "guest.resume"] as const) {
      const missing = await refusalOf(rival, method, { name: "none@rival" }, "none@rival");
      assert.match(missing, /^no-such-guest: /);
      for (const name of ["web@acme", "here@acme", "none@acme"])
        assert.equal(await refusalOf(rival, method, { name }, name), missing, method);
    }
    const swap = await refusalOf(rival, "guest.swap", { name: "web", child: "here@acme" }, "here@acme");
    assert.match(swap, /^no-such-guest: /);
    for (const method of ["transfer.show", "transfer.cancel", "transfer.run"] as const) {
      const [has, none] = [transfer, 4_000_000_001];
      const missing = await refusalOf(rival, method, { transfer: none }, none);
      assert.equal(await refusalOf(rival, method, { transfer: has }, has), missing);
    }
    const nobodys = randomUUID();
    const run = (disk: object) => ({ ...RUN, name: "probe", disks: [disk] });
    for (const [has, none] of [[layer, nobodys]] as const) {
      const missing = await refusalOf(rival, "disk.chain", { disk: none }, none);
      assert.equal(await refusalOf(rival, "disk.chain", { disk: has }, has), missing);
      const parent = await refusalOf(rival, "guest.run", run({ parent: none }), none);
      assert.match(parent, /^no-such-disk: /);
      assert.equal(await refusalOf(rival, "guest.run", run({ parent: has }), has), parent);
    }
    const unknown = await refusalOf(rival, "guest.run", run({ image: "f".repeat(64) }), "f".repeat(64));
    assert.match(unknown, /^no-such-image: /);
    for (const image of [secret, secret.slice(0, 8), "secret", "none"])
      assert.equal(await refusalOf(rival, "guest.run", run({ image }), image), unknown);
    // Nor does who runs the host mix them by mistake.
    await assert.rejects(a.call("guest.run", { ...run({ parent: layer }), name: "mixed@rival" }), {
      code: "no-such-disk",
    });
    await assert.rejects(a.call("guest.swap", { name: "web@acme", child: "web@rival" }), {
      code: "bad-request",
    });
    assert.equal((await a.call("guest.show", { name: "web@acme" })).guest.state, "running");
  });

  test("nobody deletes what the other uses, and prune leaves it", async () => {
    await assert.rejects(rival.call("image.remove", { reference: "base" }), { code: "in-use" });
    await rival.call("guest.kill", { name: "web" });
    await rival.call("guest.remove", { name: "web" });
    await rival.call("image.remove", { reference: "base" });
    assert.deepEqual((await rival.call("image.list", {})).images, []);
    const bytes = join(a.stateDirectory, "images", base, "disk.raw");
    const { images } = await a.call("image.prune", { ...NOW, dryRun: true });
    assert.ok(!images.some(({ digest }) => digest === base) && existsSync(bytes));
    await assert.rejects(acme.call("image.remove", { reference: "base" }), { code: "in-use" });
    // Acme's guest can still be run over what it wrote before, by acme.
    await acme.call("guest.kill", { name: "here" });
    await acme.call("guest.run", { ...RUN, name: "again", disks: [{ parent: layer }] });
    await eventually("it has booted", async () => (await consoleOf(acme, "again")).includes("the base disk"));
    assert.deepEqual(hosts.problems, []);
  });
});
