import { strict as assert } from "node:assert";
import { closeSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { realClock, sleep } from "../../src/base/index.js";
import {
  adoptEmulator,
  endLeftover,
  GuestError,
  probeEmulator,
  startEmulator,
} from "../../src/guest/index.js";
import { openTap } from "../../src/memory/index.js";
import { ask, EmulatorLab, freePort, whenBooted } from "../support/emulators.js";

let lab: EmulatorLab;
beforeEach(() => {
  lab = new EmulatorLab();
});
afterEach(() => lab.end());

const hasCode = (code: string, words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof GuestError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, words);
  return true;
};

describe("an emulator", () => {
  it("is probed for its version and machine types", async () => {
    const probe = await probeEmulator("x86_64");
    assert.match(probe.version, /^\d+\.\d+/);
    assert.ok(probe.machines.includes("pc-q35-7.2"));
    assert.equal(await probeEmulator("x86_64"), probe);
  });

  it("is found again after its agent went away, and its end is told to the new one", async () => {
    const first = await lab.start({ name: "guest" });
    await first.emulator.resume();
    await whenBooted(first);
    first.emulator.detach();
    const second = await lab.adopt(first);
    assert.equal(second.emulator.pid, first.emulator.pid);
    assert.equal(second.emulator.version, first.emulator.version);
    assert.equal(await second.emulator.status(), "running");
    assert.equal((await ask<{ counter: number }>(second, "/counter")).counter, 1);
    process.kill(second.emulator.pid, "SIGKILL");
    assert.equal((await second.exited).cause, "crashed");
    assert.equal(await adoptEmulator(first.place), undefined);
    assert.equal(await second.emulator.status(), "ended");
    await assert.rejects(second.emulator.stop(), hasCode("gone", /has ended/));
  });

  it("is not mistaken for another process that has its pid now", async () => {
    const place = lab.place({ name: "guest" }, await freePort());
    mkdirSync(join(place.directory, "run"), { mode: 0o700 });
    writeFileSync(join(place.directory, "run/emulator.pid"), `${process.pid}\n`);
    assert.equal(await adoptEmulator(place), undefined);
    await endLeftover(place);
  });

  it("that was left behind can be ended", async () => {
    const { emulator, place } = await lab.start({ name: "guest" });
    emulator.detach();
    await endLeftover(place);
    assert.deepEqual(lab.leftovers(), []);
    assert.equal(await adoptEmulator(place), undefined);
  });

  it("tells how it ended: crashed, asked, or switched off by the guest", async () => {
    const crashed = await lab.start({ name: "crashed" });
    process.kill(crashed.emulator.pid, "SIGSEGV");
    const exit = await crashed.exited;
    assert.deepEqual([exit.cause, exit.expected, exit.signal], ["crashed", false, "SIGSEGV"]);

    const asked = await lab.start({ name: "asked" });
    await asked.emulator.quit();
    await asked.emulator.kill();
    const asking = await asked.exited;
    assert.deepEqual([asking.cause, asking.expected, asking.code], ["asked", true, 0]);
    assert.ok(!existsSync(join(asked.place.directory, "run/qmp.sock")));

    const guest = await lab.start({ name: "guest" });
    const events: string[] = [];
    guest.emulator.onGuestEvent((event) => events.push(event.name));
    await guest.emulator.resume();
    await whenBooted(guest);
    await guest.emulator.powerDown();
    assert.equal((await guest.exited).cause, "guest");
    assert.ok(events.includes("RESUME") && events.includes("POWERDOWN") && events.includes("SHUTDOWN"));
  });

  it("forwards ports that are added while it runs, and no longer once they are removed", async () => {
    const guest = await lab.start({ name: "guest" });
    await guest.emulator.resume();
    await whenBooted(guest);
    const forward = {
      host: "127.0.0.1",
      hostPort: await freePort(),
      guestPort: 80,
      protocol: "tcp" as const,
    };
    await guest.emulator.addForward(forward);
    assert.ok(await ask({ port: forward.hostPort }, "/counter"));
    await assert.rejects(guest.emulator.addForward(forward), hasCode("command-failed", /is not forwarded/));
    await guest.emulator.removeForward(forward);
    await assert.rejects(ask({ port: forward.hostPort }, "/counter"));
    await assert.rejects(guest.emulator.removeForward(forward), hasCode("command-failed", /stays forwarded/));
  });

  it("has a console for one person at a time", async () => {
    const guest = await lab.start({ name: "guest" });
    await guest.emulator.resume();
    await whenBooted(guest);
    let text = "";
    let isEnded = false;
    const handlers = {
      onData: (bytes: Uint8Array) => {
        text += Buffer.from(bytes).toString();
      },
      onEnd: () => {
        isEnded = true;
      },
    };
    const first = await guest.emulator.openConsole(handlers);
    await assert.rejects(guest.emulator.openConsole(handlers), hasCode("busy", /already attached/));
    while (!text.includes("sum 42")) {
      first.write(Buffer.from("echo sum $((40 + 2))\n"));
      await sleep(realClock, 200);
    }
    first.close();
    while (!isEnded) await sleep(realClock, 5);
    (await guest.emulator.openConsole(handlers)).close();
  });

  it("sees only the environment it is given, and memory nobody else can read", async () => {
    const { emulator } = await lab.start({ name: "guest", start: { environment: { ONLY: "this" } } });
    assert.equal(readFileSync(`/proc/${emulator.pid}/environ`, "utf8"), "ONLY=this\0");
    const { statSync } = await import("node:fs");
    assert.equal(statSync(emulator.ramPath).mode & 0o777, 0o600);
    assert.equal(statSync(emulator.ramPath).size, 256 * 1024 * 1024);
  });
});

describe("what does not start", () => {
  it("is a machine type the emulator does not know", async () => {
    const start = lab.start({ name: "guest", machine: "pc-q35-99.0" });
    await assert.rejects(
      start,
      hasCode(
        "unsupported-machine",
        /does not know the machine type pc-q35-99\.0; the newest it knows is pc-q35-/,
      ),
    );
    assert.deepEqual(lab.leftovers(), []);
  });

  it("is a port that is taken", async () => {
    const first = await lab.start({ name: "first" });
    const forwards = [{ hostPort: first.port, guestPort: 80 }];
    const start = lab.start({
      name: "second",
      network: { mode: "user", mac: "52:54:00:12:34:57", forwards },
    });
    await assert.rejects(
      start,
      hasCode("start-failed", /ended with code 1; it says: .*host forwarding rule/s),
    );
    assert.ok(!existsSync(join(lab.memory, "second")), "no memory is left");
    await first.emulator.quit();
    assert.deepEqual(lab.leftovers(), []);
  });

  it("is an emulator that is not there", async () => {
    const start = lab.start({ name: "guest", start: { binary: "/nonexistent/qemu" } });
    await assert.rejects(start, hasCode("not-installed", /there is no emulator \/nonexistent\/qemu/));
  });

  it("is a guest on a bridge that does not exist", async () => {
    const network = { mode: "tap", mac: "52:54:00:12:34:56", tap: "ramet-t0", bridge: "ramet-nobridge" };
    const tap = openTap("ramet-t0");
    const start = lab.start({ name: "guest", network, start: { tap } }).finally(() => closeSync(tap));
    await assert.rejects(
      start,
      hasCode("network-failed", /tap ramet-t0 could not be connected to the bridge ramet-nobridge/),
    );
    assert.deepEqual(lab.leftovers(), []);
    assert.ok(!existsSync("/sys/class/net/ramet-t0"), "no device is left");
  });

  it("is a guest whose kernel is missing", async () => {
    const place = lab.place({ name: "guest" }, await freePort());
    const config = { ...place.config, kernel: "/nonexistent/vmlinuz" };
    await assert.rejects(
      startEmulator({ ...place, config, incoming: false }),
      hasCode("missing-file", /kernel/),
    );
  });
});

describe("a device state that cannot be loaded", () => {
  it("ends the child's emulator with a clear error", async () => {
    const parent = await lab.start({ name: "parent" });
    await parent.emulator.resume();
    await whenBooted(parent);
    const other = await lab.start({ name: "other", machine: "pc-q35-7.1", incoming: true });
    const words = /of a guest with machine type pc-q35-7\.2, and this emulator was started as pc-q35-7\.1/;
    await assert.rejects(lab.fork(parent, other), hasCode("bad-device-state", words));
    assert.equal((await other.exited).expected, true);

    // Another number of processors: QEMU itself refuses.
    const larger = await lab.start({ name: "larger", cpus: 2, network: { mode: "none" }, incoming: true });
    await assert.rejects(
      lab.fork(parent, larger),
      hasCode("load-failed", /did not load the device state.*it says: /s),
    );

    const noise = await lab.start({ name: "noise", incoming: true });
    await assert.rejects(
      noise.emulator.loadDeviceState(Buffer.from("noise")),
      hasCode("bad-device-state", /are not a device state/),
    );

    assert.equal(await parent.emulator.status(), "running");
    assert.ok(await ask(parent, "/counter"));
    await parent.emulator.kill();
    assert.deepEqual(lab.leftovers(), []);
  });

  it("is noticed when it is cut off", async () => {
    const parent = await lab.start({ name: "parent" });
    await parent.emulator.resume();
    await parent.emulator.stop();
    const state = (await parent.emulator.saveDeviceState({ handOver: false })).compose();
    const child = await lab.start({ name: "child", incoming: true });
    const load = child.emulator.loadDeviceState(state.subarray(0, state.length - 1000));
    await assert.rejects(load, hasCode("load-failed", /did not load/));
    await child.exited;
  });
});
