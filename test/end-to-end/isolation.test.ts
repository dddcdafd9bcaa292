import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { closeSync, existsSync, fstatSync, openSync, readdirSync, readFileSync, statSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { GuestView } from "../../src/control/index.js";
import { Hosts, type Host } from "../support/hosts.js";
import { ask, runSample, whenTransfersEnd } from "../support/sample-guest.js";
import { cleanAfterFailures } from "../support/two-hosts.js";

const ROOT = new URL("../..", import.meta.url).pathname;
const MIB = 1024 * 1024;
const OVERHEAD_MIB = 512;
const TASKS = 64;

/** What proc(5) says of a process. */
function statusOf(pid: number): Map<string, string> {
  const lines = readFileSync(`/proc/${pid}/status`, "utf8").split("\n");
  return new Map(lines.map((line) => [line.split(":")[0] ?? "", line.slice(line.indexOf(":") + 1).trim()]));
}

function pidOf({ pid }: GuestView): number {
  assert.ok(pid !== undefined, "the guest runs");
  return pid;
}

function userOf({ isolation }: GuestView): number {
  assert.ok(isolation !== undefined, "the guest runs");
  return isolation.user;
}

/** Where the emulator is in the tree of cgroups that limits tasks; undefined where this machine has none for it. */
function cgroupOf(pid: number): string | undefined {
  const lines = readFileSync(`/proc/${pid}/cgroup`, "utf8");
  const own = /^\d+:(?:[^:]*,)?pids(?:,[^:]*)?:(.*)$/m.exec(lines)?.[1];
  const path = own === undefined ? /^0::(.*)$/m.exec(lines)?.[1] : `/pids${own}`;
  return path?.includes("/ramet/") === true ? join("/sys/fs/cgroup", path) : undefined;
}

/** Runs a program as the emulator's user, in its file system or the host's. */
function runAs(guest: GuestView, where: "inside" | "outside", ...command: string[]) {
  const user = String(userOf(guest));
  const enter =
    where === "inside" ? ["nsenter", "--target", String(pidOf(guest)), "--mount", "--root", "--wd=/"] : [];
  const become = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", ...command];
  const [program = "", ...args] = [...enter, ...become];
  return spawnSync(program, args, { encoding: "utf8", timeout: 30_000 });
}

function assertConfined(guest: GuestView): void {
  const status = statusOf(pidOf(guest));
  const user = userOf(guest);
  assert.ok(user >= 1_900_000_000, `user ${user}`);
  for (const field of ["Uid", "Gid"]) assert.equal(status.get(field), Array(4).fill(user).join("\t"));
  assert.equal(status.get("Groups"), "");
  for (const field of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
    assert.equal(status.get(field), "0000000000000000", field);
  assert.equal(status.get("NoNewPrivs"), "1");
  assert.equal(status.get("Seccomp"), "2");
  const { limits, ...rest } = guest.isolation ?? { limits: {} };
  assert.deepEqual(rest, {
    user,
    withoutCapabilities: true,
    noNewPrivileges: true,
    systemCallFilter: true,
    ownFiles: true,
  });
  assert.ok(limits !== undefined);
}

describe("an emulator is kept to itself", () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  let web: GuestView;
  before(async () => {
    const isolation = { mode: "auto", overheadMib: OVERHEAD_MIB, tasks: TASKS };
    hosts = await Hosts.start(2, { configuration: { isolation } });
    a = hosts.at(0);
    b = hosts.at(1);
    web = await runSample(a, { name: "web", hostPort: 8080 });
  });
  cleanAfterFailures(() => hosts);
  after(() => hosts.stop());

  test("it has a user of its own, and no rights", () => {
    assertConfined(web);
    const limits = statSync(`/proc/${pidOf(web)}`);
    assert.equal(limits.uid, userOf(web));
    assert.match(readFileSync(`/proc/${pidOf(web)}/limits`, "utf8"), /Max core file size\s+0\s+0/);
  });

  test("it sees programs, libraries and its own directories", () => {
    const root = `/proc/${pidOf(web)}/root`;
    assert.ok(!existsSync(join(root, "proc/self")), "no processes");
    assert.deepEqual(readdirSync(join(root, "host")), [], "nothing of the host's own root");
    // But the way to this checkout, whose preloaded library it needs.
    const ownWay = ROOT.split("/")[1];
    for (const path of ["etc/passwd", "root", "home", "sys", "var/log", "boot", "run/ramet"])
      if (path !== ownWay) assert.ok(!existsSync(join(root, path)), path);
    assert.deepEqual(
      readdirSync(join(root, "dev")).filter((name) => name !== "shm"),
      ["null", "random", "urandom"],
    );
    const state = join(root, a.stateDirectory);
    assert.deepEqual(readdirSync(state).toSorted(), ["boot", "guests"]);
    assert.deepEqual(readdirSync(join(state, "guests")), [web.id]);
    assert.deepEqual(readdirSync(join(state, "guests", web.id)), ["run"]);
    assert.deepEqual(readdirSync(join(state, "boot")).length, 2, "its kernel and initrd");
    assert.deepEqual(readdirSync(join(root, a.memoryDirectory)), [web.id]);
    for (const path of ["/x", "/usr/x", `${a.stateDirectory}/x`, join(a.memoryDirectory, web.id, "x")])
      assert.notEqual(runAs(web, "inside", "touch", path).status, 0, `${path} cannot be made`);
    const own = join(a.stateDirectory, "guests", web.id, "run/x");
    assert.equal(runAs(web, "inside", "touch", own).status, 0, "its own directory can be written to");
  });

  test("its files are closed to everybody else", () => {
    const user = userOf(web);
    const expected: [string, number, number, number][] = [
      [join(a.memoryDirectory, web.id), 0o710, 0, user],
      [join(a.memoryDirectory, web.id, "ram"), 0o600, user, user],
      [join(a.stateDirectory, "guests"), 0o700, 0, 0],
      [join(a.stateDirectory, "guests", web.id), 0o700, 0, 0],
      [join(a.stateDirectory, "guests", web.id, "run"), 0o700, user, user],
      [join(a.stateDirectory, "guests", web.id, "console.log"), 0o600, 0, 0],
      [join(a.stateDirectory, "guests", web.id, "guest.json"), 0o600, 0, 0],
      [join(a.stateDirectory, "boot"), 0o700, 0, 0],
    ];
    for (const [path, mode, uid, gid] of expected) {
      const found = statSync(path);
      assert.deepEqual([found.mode & 0o777, found.uid, found.gid], [mode, uid, gid], path);
    }
  });

  test("it cannot read another guest's memory", async () => {
    const other = await runSample(a, { name: "other" });
    assert.notEqual(userOf(other), userOf(web));
    const own = join(a.memoryDirectory, web.id, "ram");
    const ram = join(a.memoryDirectory, other.id, "ram");
    const read = (path: string): string[] => ["head", "--bytes=16", path];
    assert.equal(runAs(web, "inside", ...read(own)).status, 0, "its own can be read");
    assert.match(runAs(web, "inside", ...read(ram)).stderr, /No such file/);
    assert.match(runAs(web, "outside", ...read(ram)).stderr, /Permission denied/);
    assert.match(runAs(web, "outside", "head", "--bytes=1", `/proc/${pidOf(other)}/mem`).stderr, /denied/);
    const signal = runAs(web, "outside", "kill", "-0", String(pidOf(other)));
    assert.match(signal.stderr, /not permitted/);
  });

  test("its cgroup holds it to its limits", () => {
    const cgroup = cgroupOf(pidOf(web));
    if (cgroup === undefined) {
      assert.match(a.log, /emulators have no limits/, "the agent says that and why");
      return;
    }
    const expected = { memoryBytes: (256 + OVERHEAD_MIB) * MIB, tasks: TASKS, cpuPercent: 200 };
    assert.deepEqual(web.isolation?.limits, expected);
    const joining = `echo $$ >${cgroup}/cgroup.procs`;
    const tasks = spawnSync(
      "sh",
      ["-c", `${joining}; for task in $(seq ${TASKS}); do sleep 5 & done; wait`],
      {
        encoding: "utf8",
        timeout: 30_000,
      },
    );
    assert.match(tasks.stderr, /fork/i, "one more task than the limit is refused");
    const memory = cgroup.replace("/pids/", "/memory/");
    const greedy = `echo $$ >${memory}/cgroup.procs; head --bytes=2G /dev/zero | tail --bytes=2G`;
    const killed = spawnSync("sh", ["-c", greedy], { stdio: "ignore", timeout: 60_000 });
    assert.equal(
      killed.status,
      128 + constants.signals.SIGKILL,
      "who takes more memory than the limit is ended",
    );
    assert.ok(existsSync(`/proc/${pidOf(web)}`), "which was not the emulator");
  });

  test("forks and migrations work with it, also after the agent was killed", async () => {
    const { transfers } = await a.call("guest.fork", { name: "web", to: ["a", "b"], count: 2, verify: true });
    await whenTransfersEnd(a);
    for (const { transfer } of transfers) {
      const { phase, verify } = (await a.call("transfer.show", { transfer })).transfer;
      assert.deepEqual({ phase, verify }, { phase: "complete", verify: { checked: 65536, mismatches: 0 } });
    }
    const children = [...(await a.guests()).values(), ...(await b.guests()).values()];
    assert.equal(new Set(children.map(userOf)).size, 4, "each has a user of its own");
    for (const child of children) assertConfined(child);

    await a.end("SIGKILL");
    await a.start();
    const adopted = (await a.guests()).get("web");
    assert.deepEqual(adopted?.isolation, web.isolation);
    await a.call("guest.migrate", { name: "web", to: "b", verify: true });
    await whenTransfersEnd(a);
    const moved = (await b.guests()).get("web");
    assert.ok(moved !== undefined);
    assertConfined(moved);
    assert.ok((await ask(b, 8080)).counter > 0);
  });

  test("what it had is wiped and gone when it ends", async () => {
    const moved = (await b.guests()).get("web");
    assert.ok(moved !== undefined);
    const cgroup = cgroupOf(pidOf(moved));
    const ram = openSync(join(b.memoryDirectory, moved.id, "ram"), "r");
    try {
      assert.ok(fstatSync(ram).blocks > 0);
      await b.call("guest.kill", { name: "web" });
      await b.call("guest.remove", { name: "web" });
      const { size, blocks } = fstatSync(ram);
      assert.deepEqual({ size, blocks }, { size: 0, blocks: 0 }, "also for who has it open");
    } finally {
      closeSync(ram);
    }
    assert.ok(cgroup === undefined || !existsSync(cgroup), "its cgroup is gone");
    assert.ok(!existsSync(join(b.memoryDirectory, moved.id)));
    assert.deepEqual(hosts.problems, []);
  });

  test("nothing of it is mounted on the host", () => {
    const mounts = execFileSync("cat", ["/proc/self/mountinfo"], { encoding: "utf8" });
    assert.ok(!mounts.includes(a.stateDirectory));
  });
});

describe("an emulator is not kept to itself", () => {
  test("where the configuration says so, and then the agent says that too", async () => {
    const hosts = await Hosts.start(1, { configuration: { isolation: { mode: "off" } } });
    try {
      const host = hosts.at(0);
      const guest = await runSample(host, { name: "open" });
      assert.equal(userOf(guest), 0);
      assert.equal(guest.isolation?.ownFiles, false);
      assert.equal(guest.isolation.withoutCapabilities, false);
      assert.equal(guest.isolation.systemCallFilter, true, "the emulator's own filter is always on");
      assert.match(host.log, /isolation is switched off/);
    } finally {
      await hosts.stop();
    }
  });
});
