import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, type NetConnectOpts, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test, type TestContext } from "node:test";
import { codeOf, realClock, silentLog } from "../../src/base/index.js";
import { RpcClient } from "../../src/control/index.js";
import { dial } from "../../src/lane/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { ask, runSample, sampleGuest, whenTransfersEnd } from "../support/sample-guest.js";

const MIB = 1024 * 1024;

/** What an agent may at most have had in memory, whatever it was put under. */
const MOST_RESIDENT_BYTES = 512 * MIB;

/** Takes what is left of a file system; the returned function gives it back. */
function fill(directory: string): () => void {
  const path = join(directory, "taken");
  const chunk = Buffer.alloc(MIB, 1);
  for (const piece of [chunk, chunk.subarray(0, 4096)]) {
    try {
      for (;;) writeFileSync(path, piece, { flag: "a" });
    } catch {
      // It is full.
    }
  }
  return () => rmSync(path);
}

/** Most memory the agent has had at once (proc(5), VmHWM), told in the test's report. */
function residentBytes(host: Host, context: TestContext): number {
  const status = readFileSync(`/proc/${host.pid}/status`, "utf8");
  const bytes = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
  context.diagnostic(`agent ${host.name}: at most ${Math.round(bytes / MIB)} MiB resident`);
  return bytes;
}

/** Every field of a refusal that a user reads. */
function refusal(code: string, message: RegExp) {
  return (error: unknown): boolean => {
    assert.ok(error instanceof Error && "code" in error);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}

describe("two agents under pressure", () => {
  let scratch = "";
  let memory = "";
  let state = "";
  let hosts: Hosts;
  let a: Host;
  let b: Host;

  before(async () => {
    scratch = mkdtempSync(join(tmpdir(), "rp-"));
    memory = join(scratch, "memory");
    state = join(scratch, "s");
    for (const [directory, size] of [
      [memory, "500m"],
      [state, "64m"],
    ] as const) {
      mkdirSync(directory);
      execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size},mode=0700`, "tmpfs", directory]);
    }
    // The second host's directories are file systems of their own, small enough to be filled.
    const small = { memoryDirectory: memory, stateDirectory: state, limits: { memoryReserveMib: 32 } };
    hosts = await Hosts.start(2, {
      configuration: { limits: { copiesMib: 1 } },
      each: (name) => (name === "b" ? { configuration: small } : {}),
    });
    a = hosts.at(0);
    b = hosts.at(1);
    await runSample(a, { name: "web", hostPort: 8080 });
  });

  after(async () => {
    await hosts.stop();
    for (const directory of [memory, state]) execFileSync("umount", [directory]);
    rmSync(scratch, { recursive: true, force: true });
  });

  test("a guest that does not fit is refused with figures, whether limited by the operator or by the machine", async () => {
    const files = sampleGuest();
    await assert.rejects(
      b.call("guest.run", { name: "large", memoryMiB: 512, ...files }),
      refusal("no-room", /guest large needs 512 MiB of memory, but the limit is 468 MiB and 0 MiB are taken/),
    );
    const giveBack = fill(memory);
    try {
      await assert.rejects(
        b.call("guest.run", { name: "web", memoryMiB: 256, ...files }),
        refusal(
          "no-room",
          /the memory directory's file system has room for 0 MiB .*make room on that file system/,
        ),
      );
      await assert.rejects(
        a.call("guest.fork", { name: "web", to: ["b"], names: ["child"] }),
        refusal(
          "prepare-failed",
          /host b cannot take the child: guest child needs 256 MiB .* room for 0 MiB/,
        ),
      );
    } finally {
      giveBack();
    }
    assert.equal((await a.guests()).get("web")?.state, "running");
    assert.equal((await b.guests()).size, 0);
  });

  test("a disk that is full refuses new guests in words, keeps nothing, and hurts none that runs", async () => {
    const files = sampleGuest();
    await b.call("guest.run", { name: "before", memoryMiB: 128, ...files });
    const giveBack = fill(state);
    try {
      const kernel = join(scratch, "kernel");
      writeFileSync(kernel, Buffer.alloc(8 * MIB, "k"));
      const other = { ...files, kernel };
      await assert.rejects(
        b.call("guest.run", { name: "after", memoryMiB: 128, ...other }),
        refusal("no-room", /the file system of .* is full: make room there/),
      );
      await assert.rejects(
        a.call("guest.fork", { name: "web", to: ["b"], names: ["child"] }),
        refusal("prepare-failed", /host b cannot take the child: the file system of .* is full/),
      );
      assert.deepEqual([...(await b.guests()).keys()], ["before"]);
      assert.equal((await b.guests()).get("before")?.state, "running");
    } finally {
      giveBack();
    }
    assert.equal((await a.guests()).get("web")?.state, "running");
    await b.call("guest.kill", { name: "before" });
    await b.call("guest.remove", { name: "before" });
    assert.deepEqual(readdirSync(join(state, "guests")), []);
  });

  test("memory that fills up while a child receives fails that child, and its parent runs on", async () => {
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["b"],
      names: ["child"],
      sweep: "held",
    });
    const [outcome] = transfers;
    assert.ok(outcome !== undefined);
    const giveBack = fill(memory);
    try {
      // What the child touches may have failed it already.
      await a.call("transfer.sweep", { transfer: outcome.transfer, sweep: "on" }).catch((error: unknown) => {
        assert.equal(codeOf(error), "bad-state");
      });
      await whenTransfersEnd(a);
      const { transfer } = await a.call("transfer.show", { transfer: outcome.transfer });
      assert.equal(transfer.phase, "failed", transfer.message);
      assert.match(transfer.message ?? "", /no memory left|no room|is full: make room|ended/);
    } finally {
      giveBack();
    }
    const before = await ask(a, 8080);
    assert.ok((await ask(a, 8080)).counter > before.counter, "the parent answers");
    await whenTransfersEnd(b);
    await eventually("the child is over", async () => {
      const child = (await b.guests()).get("child");
      return child === undefined || child.state === "crashed" || child.state === "stopped";
    });
    if ((await b.guests()).has("child")) await b.call("guest.remove", { name: "child" });
  });

  test("a budget for copies that is spent holds the parent up, and nothing is lost", async (context) => {
    await ask(a, 8080, "/stamp/start?mib=64");
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["b"],
      names: ["child"],
      verify: true,
      rateLimitBytesPerSecond: 8 * MIB,
    });
    const [outcome] = transfers;
    assert.ok(outcome !== undefined);
    await whenTransfersEnd(a, 180_000);
    const { transfer } = await a.call("transfer.show", { transfer: outcome.transfer });
    assert.equal(transfer.phase, "complete", transfer.message);
    assert.deepEqual(transfer.verify, { checked: 65536, mismatches: 0 });
    assert.ok(transfer.pages.push > 0, "the parent wrote what the child lacked");
    await ask(a, 8080, "/stamp/stop");
    await b.call("guest.kill", { name: "child" });
    await b.call("guest.remove", { name: "child" });
    for (const host of [a, b]) assert.ok(residentBytes(host, context) < MOST_RESIDENT_BYTES);
  });

  test("thousands of connections that say nothing are bounded, and commands go on", async (context) => {
    const sockets: Socket[] = [];
    const open = (target: NetConnectOpts): void => {
      const socket = connect(target);
      socket.on("error", () => {});
      sockets.push(socket);
    };
    const [address = "", port = ""] = new URL(a.url).host.split(":");
    const descriptors = (): number => readdirSync(`/proc/${a.pid}/fd`).length;
    const before = descriptors();
    try {
      for (let round = 0; round < 10; round += 1) {
        for (let index = 0; index < 200; index += 1) {
          open({ host: address, port: Number(port) });
          open({ path: a.socket });
        }
        assert.equal((await a.call("agent.info", {})).name, "a", "a client that was there goes on");
      }
      assert.equal(sockets.length, 4000);
      await eventually("no more are kept than are allowed", () => descriptors() - before <= 2 * 64 + 16);
      const connection = await dial({
        url: `unix:${a.socket}`,
        hello: { purpose: "control", role: "client" },
        clock: realClock,
        deadlineMs: 10_000,
      });
      const client = new RpcClient(connection, { clock: realClock, log: silentLog });
      assert.equal(
        (await client.call("agent.info", {}, { deadlineMs: 10_000 })).name,
        "a",
        "a new client comes in",
      );
      client.close();
    } finally {
      for (const socket of sockets) socket.destroy();
    }
    assert.ok(residentBytes(a, context) < MOST_RESIDENT_BYTES);
    await eventually("they are gone", () => descriptors() <= before + 8);
  });

  test("a client that asks and never reads is cut off, and nobody else notices", async (context) => {
    const connection = await dial({
      url: `unix:${a.socket}`,
      hello: { purpose: "control", role: "client" },
      clock: realClock,
      deadlineMs: 10_000,
    });
    const client = new RpcClient(connection, { clock: realClock, log: silentLog });
    const asked = Array.from({ length: 2000 }, () =>
      client.call("guest.logs", { name: "web", source: "console", lines: 5000 }, { deadlineMs: 60_000 }).then(
        () => "answered",
        (error: unknown) => (error instanceof Error && "code" in error ? String(error.code) : "?"),
      ),
    );
    const outcomes = new Set(await Promise.all(asked));
    client.close();
    assert.ok(outcomes.has("answered") && outcomes.has("busy"), [...outcomes].join(", "));
    assert.equal((await a.call("agent.info", {})).name, "a");
    assert.ok(residentBytes(a, context) < MOST_RESIDENT_BYTES);
  });

  test("afterwards both agents work, and have logged no mistake of their own", async () => {
    const { transfers } = await a.call("guest.fork", {
      name: "web",
      to: ["b"],
      names: ["last"],
      verify: true,
    });
    await whenTransfersEnd(a);
    const [outcome] = transfers;
    assert.ok(outcome !== undefined);
    const { transfer } = await a.call("transfer.show", { transfer: outcome.transfer });
    assert.equal(transfer.phase, "complete", transfer.message);
    // What could not be written to the audit log while the disk was full stands in the log instead, which is as it should be.
    const mistakes = hosts.problems.filter((problem) => !problem.includes("the audit log cannot be written"));
    assert.deepEqual(mistakes, []);
  });
});
