import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { createServer } from "node:net";
import { once } from "node:events";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { emulatorsBelow, eventually, Hosts, type Host } from "../support/hosts.js";
import { nicenessOfThreads } from "../support/niceness.js";
import { ask, runSample, sampleGuest } from "../support/sample-guest.js";
import { cleanAfterFailures } from "../support/two-hosts.js";

const ROOT = new URL("../..", import.meta.url).pathname;

/** Every field of a refusal that a user reads. */
function refusal(code: string, message: RegExp) {
  return (error: unknown): boolean => {
    assert.ok(error instanceof Error && "code" in error);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}

/** Faults are served ahead of whatever else the agent does, and that ahead of guests. */
async function assertServesFaultsFirst(host: Host): Promise<void> {
  await eventually("the thread that serves faults goes first", () => {
    const threads = nicenessOfThreads(host.pid);
    const others = threads.filter((niceness) => niceness !== -15);
    return others.length === threads.length - 1 && others.every((niceness) => niceness === -10);
  });
}

/** An agent that is started anew plays transfers with itself, which end for a real one, of this guest, and go on; nothing of them is left. */
async function assertRehearses(host: Host, name: string): Promise<void> {
  const rehearsal = async () => (await host.call("agent.info", {})).rehearsal;
  assert.equal((await rehearsal())?.phase, "off");
  await host.end();
  await host.start(["--rehearsal-ms", "60000"]);
  await eventually("a transfer was rehearsed", async () => ((await rehearsal())?.transfers ?? 0) > 0);
  const { transfers } = await host.call("guest.fork", { name, names: ["real"] });
  assert.equal(transfers[0]?.state, "running");
  await eventually("the rehearsal is over", async () => (await rehearsal())?.phase === "done");
  assert.equal((await rehearsal())?.interrupted, 1);
  await assertServesFaultsFirst(host);
  assert.ok(!existsSync(join(host.stateDirectory, "rehearsal")), "no file is left");
  const { stdout } = spawnSync("ps", ["--ppid", String(host.pid), "-o", "comm="], { encoding: "utf8" });
  assert.doesNotMatch(stdout, /rehears/);
  await host.call("guest.kill", { name: "real" });
  await eventually("the child is removed", () =>
    host.call("guest.remove", { name: "real" }).then(
      () => true,
      () => false,
    ),
  );
  await host.end();
  await host.start();
}

describe("an agent", () => {
  let hosts: Hosts;
  let host: Host;
  before(async () => {
    hosts = await Hosts.start(1, { configuration: { limits: { memoryMib: 512, maxGuests: 3 } } });
    host = hosts.at(0);
  });
  cleanAfterFailures(() => hosts);
  after(() => hosts.stop());

  test("says what it is", async () => {
    const info = await host.call("agent.info", {});
    assert.equal(info.name, "a");
    assert.deepEqual(info.addresses, [`unix:${host.socket}`, host.url]);
    assert.equal(info.memory.totalBytes, 512 * 1024 * 1024);
    assert.ok(info.emulators.some(({ machine }) => machine === "pc-q35-7.2"));
    await assertServesFaultsFirst(host);
  });

  test("runs a guest, shows its console and logs, stops and removes it", async () => {
    const guest = await runSample(host, { name: "web", hostPort: 8080 });
    assert.equal(guest.state, "running");
    assert.equal(guest.memoryBytes, 256 * 1024 * 1024);
    assert.equal((await ask(host, 8080)).counter, 1);

    const output: string[] = [];
    const stopListening = host.client.onEvent((event) => {
      if (event.event === "console") output.push(Buffer.from(event.data.data).toString());
    });
    const { console } = await host.call("guest.console.open", { name: "web" });
    await host.call("guest.console.input", { console, data: Buffer.from("echo $((6 * 7))-seen\n") });
    await eventually("the shell answers", () => output.join("").includes("42-seen"));
    await host.call("guest.console.close", { console });
    stopListening();
    await assert.rejects(
      host.call("guest.console.input", { console, data: Buffer.from("x") }),
      refusal("bad-request", /no console/),
    );

    await assert.rejects(host.call("guest.remove", { name: "web" }), refusal("bad-state", /stop or kill it/));
    const stopped = await host.call("guest.stop", { name: "web" });
    assert.equal(stopped.guest.state, "stopped");
    assert.equal(stopped.guest.message, "it switched itself off");
    assert.equal((await host.call("guest.stop", { name: "web" })).guest.state, "stopped");
    assert.ok(!existsSync(join(host.memoryDirectory, guest.id)), "its memory is gone");
    const { lines } = await host.call("guest.logs", { name: "web", source: "console", lines: 5000 });
    assert.ok(
      lines.some((line) => line.includes("42-seen")),
      "a stopped guest's console can still be read",
    );
    await host.call("guest.remove", { name: "web" });
    assert.deepEqual(readdirSync(join(host.stateDirectory, "guests")), []);
    assert.deepEqual(readdirSync(join(host.stateDirectory, "boot")), [], "boot files nobody uses are gone");
  });

  test("tells of every change of a guest", async () => {
    const seen: string[] = [];
    await host.call("events.subscribe", {});
    const stopListening = host.client.onEvent((event) => {
      if (event.event === "guest") seen.push(`${event.data.change} ${event.data.guest.state}`);
    });
    await host.call("guest.run", { name: "told", ...sampleGuest() });
    await host.call("guest.kill", { name: "told" });
    await host.call("guest.remove", { name: "told" });
    await eventually("the removal is told", () => seen.includes("removed stopped"));
    assert.equal(seen[0], "added starting");
    assert.ok(seen.includes("changed running"), seen.join(", "));
    assert.ok(seen.includes("changed stopped"), seen.join(", "));
    stopListening();
  });

  test("refuses what it cannot run, with the reason, and keeps nothing of it", async () => {
    const taken = createServer().listen(8099, host.address);
    await once(taken, "listening");
    const files = sampleGuest();
    const refused: [object, string, RegExp][] = [
      [
        { memoryMiB: 1024 },
        "no-room",
        /guest x needs 1024 MiB of memory, but the limit is 512 MiB and 0 MiB are taken: .*remove a guest/,
      ],
      [{ memoryMiB: 17 }, "bad-config", /memoryBytes: must be/],
      [{ machine: "q35" }, "bad-config", /machine: must be a versioned machine type/],
      [{ machine: "pc-q35-99.0" }, "unsupported-machine", /does not know the machine type pc-q35-99.0/],
      [{ kernel: "/nowhere/vmlinuz" }, "bad-boot-file", /\/nowhere\/vmlinuz cannot be read: ENOENT/],
      [
        { network: { mode: "user", forwards: ["8099:80"] } },
        "port-taken",
        /tcp port 8099 on 127.0.0.11 is in use/,
      ],
      [{ network: { mode: "tap", bridge: "ramet-none" } }, "network", /no bridge ramet-none; make it with/],
      [{ name: "Web" }, "bad-params", /name/],
    ];
    for (const [params, code, message] of refused) {
      await assert.rejects(
        host.call("guest.run", { name: "x", ...files, ...params }),
        refusal(code, message),
        JSON.stringify(params),
      );
    }
    taken.close();
    assert.deepEqual((await host.guests()).size, 0);
    assert.deepEqual(readdirSync(join(host.stateDirectory, "guests")), []);
    assert.equal(
      (await host.call("agent.info", {})).memory.availableBytes,
      512 * 1024 * 1024,
      "no memory stays reserved",
    );
    await assert.rejects(host.call("guest.show", { name: "x" }), refusal("no-such-guest", /no guest x/));
  });

  test("keeps names apart and guests within the limits", async () => {
    const files = sampleGuest();
    await host.call("guest.run", { name: "one", memoryMiB: 128, ...files });
    await assert.rejects(
      host.call("guest.run", { name: "one", memoryMiB: 128, ...files }),
      refusal("name-taken", /has a guest one already/),
    );
    await host.call("guest.run", { name: "two", memoryMiB: 128, ...files });
    await host.call("guest.run", { name: "three", memoryMiB: 128, ...files });
    await assert.rejects(
      host.call("guest.run", { name: "four", memoryMiB: 64, ...files }),
      refusal("too-many-guests", /as many guests as it may have/),
    );
    for (const name of ["one", "two", "three"]) {
      await host.call("guest.kill", { name });
      await host.call("guest.remove", { name });
    }
  });

  test("lets guests run on while it is stopped, killed and started again", async () => {
    const guest = await runSample(host, { name: "lasting", hostPort: 8080 });
    const first = await ask(host, 8080);
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const code = await host.end(signal);
      if (signal === "SIGTERM") assert.equal(code, 0);
      const between = await ask(host, 8080);
      assert.equal(between.boot_id, first.boot_id);
      await host.start();
      const found = (await host.guests()).get("lasting");
      assert.equal(found?.state, "running");
      assert.equal(found?.pid, guest.pid);
    }
    assert.equal((await ask(host, 8080)).boot_id, first.boot_id);
    assert.equal(
      (await host.call("agent.info", {})).memory.availableBytes,
      256 * 1024 * 1024,
      "its memory is counted again",
    );
    await assertRehearses(host, "lasting");
    assert.equal((await host.call("guest.stop", { name: "lasting" })).guest.state, "stopped");
    await host.call("guest.remove", { name: "lasting" });
  });

  test("says which guests ended while it was away", async () => {
    const guest = await runSample(host, { name: "lost" });
    await host.end();
    process.kill(guest.pid ?? 0, "SIGKILL");
    await host.start();
    const found = (await host.guests()).get("lost");
    assert.equal(found?.state, "crashed");
    assert.match(found?.message ?? "", /while no agent was running/);
    assert.ok(!existsSync(join(host.memoryDirectory, guest.id)), "its memory is gone");
    await host.call("guest.remove", { name: "lost" });
  });

  test("says that and how an emulator crashed", async () => {
    const guest = await runSample(host, { name: "crashing" });
    process.kill(guest.pid ?? 0, "SIGSEGV");
    await eventually("it is noticed", async () => (await host.guests()).get("crashing")?.state === "crashed");
    assert.match(
      (await host.guests()).get("crashing")?.message ?? "",
      /its emulator ended (by SIGSEGV|unexpectedly)/,
    );
    await host.call("guest.remove", { name: "crashing" });
    assert.deepEqual(emulatorsBelow(host.stateDirectory), []);
  });

  test("keeps a second agent off its directories", () => {
    const second = (...flags: string[]) =>
      spawnSync(
        process.execPath,
        [
          join(ROOT, "dist/agent/main.js"),
          "--listen",
          "127.0.0.11:0",
          "--socket",
          `${host.socket}.2`,
          ...flags,
        ],
        { encoding: "utf8", timeout: 30_000, cwd: ROOT },
      );
    const both = second("--state-directory", host.stateDirectory, "--memory-directory", host.memoryDirectory);
    assert.equal(both.status, 69);
    assert.match(
      both.stderr,
      new RegExp(
        `state directory ${host.stateDirectory} .*another agent \\(process ${host.pid}\\) runs on it`,
      ),
    );
    const memory = second(
      "--state-directory",
      `${host.stateDirectory}2`,
      "--memory-directory",
      host.memoryDirectory,
    );
    assert.match(memory.stderr, /memory directory .* cannot be locked/);
    const disk = second(
      "--state-directory",
      `${host.stateDirectory}2`,
      "--memory-directory",
      `${host.stateDirectory}3`,
    );
    assert.match(disk.stderr, /memoryDirectory: .* must lie on tmpfs/);
    const open = second("--listen", "0.0.0.0:7171", "--plain");
    assert.equal(open.status, 64);
    assert.match(open.stderr, /listen: 0.0.0.0:7171 .*plain connections are for loopback only/);
  });

  test("reboots a guest in place", async () => {
    await runSample(host, { name: "rebooting", hostPort: 8080 });
    const first = await ask(host, 8080);
    await ask(host, 8080, "/reboot").catch(() => {});
    await eventually("it is back", async () => {
      const again = await ask(host, 8080).catch(() => undefined);
      return again !== undefined && again.boot_id !== first.boot_id;
    });
    assert.equal((await host.guests()).get("rebooting")?.state, "running");
    await host.call("guest.kill", { name: "rebooting" });
    await host.call("guest.remove", { name: "rebooting" });
    assert.deepEqual(hosts.problems, []);
  });
});
