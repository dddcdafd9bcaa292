import assert from "node:assert/strict";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { silentLog } from "../../../src/base/index.js";
import { configurationSchema } from "../../../src/agent/configuration/index.js";
import { Cgroups, type Limits } from "../../../src/agent/isolation/cgroups.js";
import { Isolation } from "../../../src/agent/isolation/isolation.js";
import { isolationOf } from "../../../src/agent/isolation/view.js";
import { removeGuestMemory } from "../../../src/agent/store/guest-memory.js";
import { Paths } from "../../../src/agent/store/paths.js";

const MIB = 1024 * 1024;
const LIMITS: Limits = { memoryBytes: 512 * MIB, tasks: 64, cpuWeight: 50, cpuPercent: 200 };

let directory = "";
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "ramet-isolation-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function filesOf(cgroup: string, ...names: string[]): string[] {
  return names.map((name) => readFileSync(join(cgroup, name), "utf8"));
}

describe("cgroups", () => {
  test("of version 2 hand the controllers down and hold the limits", () => {
    writeFileSync(join(directory, "cgroup.controllers"), "cpuset cpu io memory pids\n");
    writeFileSync(join(directory, "cgroup.subtree_control"), "memory\n");
    const cgroups = Cgroups.open({ parent: "/ramet", key: "k", root: directory });
    assert.equal(readFileSync(join(directory, "cgroup.subtree_control"), "utf8"), "+pids +cpu");
    const joined = cgroups.make("guest", LIMITS);
    assert.deepEqual(joined, [join(directory, "ramet/k/guest")]);
    assert.deepEqual(filesOf(joined[0] as string, "memory.max", "pids.max", "cpu.weight", "cpu.max"), [
      ...[String(512 * MIB), "64", "50", "200000 100000"],
    ]);
  });

  test("of version 1 are one for each controller", () => {
    for (const name of ["memory", "pids", "cpu"]) {
      mkdirSync(join(directory, name));
      writeFileSync(join(directory, name, "cgroup.procs"), "");
    }
    const cgroups = Cgroups.open({ parent: "/ramet", key: "k", root: directory });
    const [memory = "", pids = "", cpu = ""] = cgroups.make("guest", LIMITS);
    assert.equal(memory, join(directory, "memory/ramet/k/guest"));
    assert.deepEqual(filesOf(memory, "memory.limit_in_bytes"), [String(512 * MIB)]);
    assert.deepEqual(filesOf(pids, "pids.max"), ["64"]);
    assert.deepEqual(filesOf(cpu, "cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"), [
      ...["512", "100000", "200000"],
    ]);
  });

  test("that end are removed, and so are those an earlier agent left", () => {
    for (const name of ["memory", "pids", "cpu"]) {
      // The kernel's directories have files that do not keep them from being removed; these stand for them without.
      mkdirSync(join(directory, name, "ramet/k/left"), { recursive: true });
      writeFileSync(join(directory, name, "cgroup.procs"), "");
    }
    const cgroups = Cgroups.open({ parent: "/ramet", key: "k", root: directory });
    assert.ok(!existsSync(join(directory, "memory/ramet/k/left")));
    mkdirSync(join(directory, "memory/ramet/k/gone"));
    cgroups.remove("gone");
    cgroups.remove("never-there");
    assert.ok(!existsSync(join(directory, "memory/ramet/k/gone")));
    cgroups.close();
    assert.ok(!existsSync(join(directory, "memory/ramet")));
  });

  test("that lack a controller are refused by its name", () => {
    mkdirSync(join(directory, "memory"));
    writeFileSync(join(directory, "memory/cgroup.procs"), "");
    const open = () => Cgroups.open({ parent: "/ramet", key: "k", root: directory });
    assert.throws(open, /offers no limits of pids, cpu/);
  });
});

describe("isolation", () => {
  test("is on where the machine can, by default", () => {
    const { isolation } = configurationSchema.parse({});
    assert.equal(isolation.mode, "auto");
    assert.ok(isolation.firstUid + isolation.uidCount < 2 ** 32 - 1, "every user of the range is one");
    assert.throws(() => configurationSchema.parse({ isolation: { mode: "none" } }), /auto, required or off/);
    assert.throws(() => configurationSchema.parse({ isolation: { firstUid: 0 } }), /at least 1/);
  });

  test("that is required and cannot be had keeps the agent from starting, with the reason", async () => {
    const file = join(directory, "file");
    writeFileSync(file, "");
    const paths = new Paths({ stateDirectory: file, memoryDirectory: directory });
    const settings = configurationSchema.parse({ isolation: { mode: "required" } }).isolation;
    await assert.rejects(
      Isolation.open({ settings, paths, log: silentLog }),
      (error: unknown) =>
        error instanceof Error &&
        "code" in error &&
        error.code === "no-isolation" &&
        /isolation.mode is "required", but emulators run as the agent's user/.test(error.message),
    );
  });

  test("is told as the kernel has it", () => {
    const own = isolationOf(process.pid);
    assert.equal(own?.user, process.getuid?.());
    assert.equal(own?.ownFiles, false);
    assert.equal(isolationOf(2 ** 22 + 1), undefined, "a process that is not there");
  });
});

describe("a guest's memory", () => {
  test("is cut to nothing before it is removed", async () => {
    const paths = new Paths({ stateDirectory: directory, memoryDirectory: directory });
    mkdirSync(paths.guestMemory("g"));
    writeFileSync(paths.ram("g"), "secret");
    const open = openSync(paths.ram("g"), "r");
    try {
      await removeGuestMemory(paths, "g");
      assert.equal(readFileSync(open, "utf8"), "", "nothing is left for who has it open");
    } finally {
      closeSync(open);
    }
    assert.ok(!existsSync(paths.guestMemory("g")));
    await removeGuestMemory(paths, "g");
  });
});
