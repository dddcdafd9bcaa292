import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { realClock, sleep } from "../../src/base/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { missingNextEmulator, nextEmulator } from "../support/next-emulator.js";
import { runSample, whenTransfersEnd } from "../support/sample-guest.js";
import { Talk, TwoNetworks } from "../support/two-networks.js";

const GUEST_ADDRESS = "10.98.0.9";

const skip = missingNextEmulator();

describe("two hosts with a network between them", () => {
  let networks: TwoNetworks;
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  before(async () => {
    networks = new TwoNetworks();
    const indexOf = (name: string): 0 | 1 => (name === "a" ? 0 : 1);
    hosts = await Hosts.start(2, {
      port: 7174,
      tls: true,
      each: (name) => ({
        address: networks.addresses[indexOf(name)],
        prefix: networks.inside(indexOf(name)),
        configuration: { forwardAddress: "127.0.0.1", emulators: skip === false ? [nextEmulator()] : [] },
      }),
    });
    a = hosts.at(0);
    b = hosts.at(1);
  });
  after(async () => {
    await hosts.stop();
    networks.close();
  });

  test("a client's one TCP connection goes on across a fork, and across a migration to the other host and back", async () => {
    await runSample(a, {
      name: "roamer",
      memoryMiB: 256,
      network: { mode: "tap", bridge: networks.bridge },
      append: `ip=${GUEST_ADDRESS}::10.98.0.1:255.255.255.0:roamer`,
    });
    const talk = new Talk({ prefix: networks.inside(0), url: `http://${GUEST_ADDRESS}` });
    await talk.begin();
    const addresses = networks.bridgeAddresses();
    await a.call("guest.fork", { name: "roamer", to: ["b"], names: ["alone"], verify: true });
    await whenTransfersEnd(a);
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      await from.call("guest.migrate", { name: "roamer", to: to.name, verify: true });
      await whenTransfersEnd(from);
      assert.equal((await to.guests()).get("roamer")?.state, "running");
      assert.deepEqual(networks.bridgeAddresses(), addresses, "the hosts are where they were");
      await sleep(realClock, 500);
    }
    const report = await talk.end();
    assert.equal(report.errors, 0, talk.said);
    assert.equal(report.connections, 1);
    assert.ok(report.answers > 20, `${report.answers} answers`);
    for (const host of hosts.all) {
      const { transfers } = await host.call("transfer.list", {});
      for (const { phase, verify } of transfers) {
        assert.equal(phase, "complete");
        assert.equal(verify?.mismatches, 0);
      }
    }
    assert.deepEqual(hosts.problems, []);
  });

  test(
    "a client's one TCP connection goes on across an exchange of the emulator, there and back",
    { skip },
    async (context) => {
      const talk = new Talk({ prefix: networks.inside(0), url: `http://${GUEST_ADDRESS}` });
      await talk.begin();
      for (const emulator of ["10.0", "7.2", "10.0"]) {
        const { pauseUs, to, message } = await a.call("guest.exchange", { name: "roamer", emulator });
        context.diagnostic(`${to.version}: ${(pauseUs / 1000).toFixed(1)} ms`);
        assert.equal(message, undefined);
        await sleep(realClock, 500);
      }
      const report = await talk.end();
      assert.deepEqual([report.errors, report.connections], [0, 1]);
      assert.ok(report.answers > 1, `${report.answers} answers`);
      assert.deepEqual(hosts.problems, []);
    },
  );

  test("an agent of another authority gets no guest, and says so", async () => {
    const stranger = await Hosts.start(1, {
      port: 7175,
      tls: true,
      configuration: { peers: { a: "wss://10.98.0.1:7174" } },
      each: () => ({
        address: "10.98.0.2",
        prefix: networks.inside(1),
        configuration: { forwardAddress: "127.0.0.1" },
      }),
    });
    try {
      const host = stranger.at(0);
      await host.call("guest.run", {
        name: "left-out",
        kernel: (await a.guests()).get("roamer")?.kernel ?? "",
      });
      await assert.rejects(host.call("guest.migrate", { name: "left-out", to: "10.98.0.1:7174" }), {
        code: "prepare-failed",
        message: /certificate is not of an authority that is trusted/,
      });
      assert.equal((await host.guests()).get("left-out")?.state, "running");
      assert.equal((await a.guests()).has("left-out"), false);
    } finally {
      await stranger.stop();
    }
  });

  test("guests end, and their interfaces with them", async () => {
    for (const [host, name] of [
      [a, "roamer"],
      [b, "alone"],
    ] as const) {
      await host.call("guest.kill", { name });
      await eventually(`${name} is removed`, () =>
        host.call("guest.remove", { name }).then(
          () => true,
          () => false,
        ),
      );
    }
  });
});
