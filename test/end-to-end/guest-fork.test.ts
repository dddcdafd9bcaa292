import { strict as assert } from "node:assert";
import { readdirSync } from "node:fs";
import { dirname } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { ask, EmulatorLab, whenBooted, type Started } from "../support/emulators.js";
import { HeldSaves } from "../../src/guest/index.js";
import { NamedPipe } from "../../src/memory/index.js";
import { decodeDeviceState } from "../support/device-state-decoder.js";
import { missingSampleGuest } from "../support/sample-guest.js";

interface Counter {
  counter: number;
  ticks: number;
  boot_id: string;
}

interface Verified {
  checked: number;
  bad: number;
}

interface Identity {
  vmgenid: string | null;
  changes: number;
  reseeds: number;
  kernel_reseeds: number;
}

let lab: EmulatorLab;
beforeEach(() => {
  lab = new EmulatorLab();
});
afterEach(() => lab.end());

async function boot(options: Parameters<EmulatorLab["start"]>[0]): Promise<Started> {
  const guest = await lab.start(options);
  assert.equal(await guest.emulator.status(), "paused");
  await guest.emulator.resume();
  await whenBooted(guest);
  return guest;
}

async function forkOf(parent: Started, options: Parameters<EmulatorLab["start"]>[0]): Promise<Started> {
  const child = await lab.start({ ...options, incoming: true });
  assert.equal(await child.emulator.status(), "incoming");
  const state = decodeDeviceState(await lab.fork(parent, child));
  assert.equal(state.machine, parent.emulator.config.machine);
  assert.ok(!state.devices.includes("\x05slirp"), "the network's own state is left out");
  assert.equal(await child.emulator.status(), "paused");
  await child.emulator.resume();
  return child;
}

for (const architecture of ["x86_64", "aarch64"] as const) {
  const skip = missingSampleGuest(architecture);
  describe(`a guest of ${architecture}`, { skip }, () => {
    it("runs on in a second emulator from the same instant, and survives a reboot there", async () => {
      const parent = await boot({ name: "parent", architecture, cpus: 2 });
      await ask(parent, "/stamp/start?mib=64&rate=16");
      const before = await ask<Counter>(parent, "/counter");
      const child = await forkOf(parent, { name: "child", architecture, cpus: 2 });
      // A second one from the parent, which must be as it was: the state can be saved again and again.
      const second = await forkOf(parent, { name: "second", architecture, cpus: 2 });

      for (const guest of [parent, child, second]) {
        const counter = await ask<Counter>(guest, "/counter");
        assert.equal(counter.counter, before.counter + 1);
        assert.equal(counter.boot_id, before.boot_id);
        assert.ok(counter.ticks > before.ticks);
        const verified = await ask<Verified>(guest, "/stamp/verify?order=random");
        assert.deepEqual([verified.checked, verified.bad], [64 * 256, 0]);
      }

      await ask(child, "/reboot");
      await whenBooted(child);
      const after = await ask<Counter>(child, "/counter");
      assert.equal(after.counter, 1);
      assert.notEqual(after.boot_id, before.boot_id);
      assert.equal((await ask<Counter>(parent, "/counter")).boot_id, before.boot_id);

      // And it can be forked in its turn.
      const grandchild = await forkOf(child, { name: "grandchild", architecture, cpus: 2 });
      assert.equal((await ask<Counter>(grandchild, "/counter")).boot_id, after.boot_id);
    });
  });
}

/** Remembers what was noted last. */
class Noting extends HeldSaves {
  kind = "";
  sizeBytes = 0;
  begun: "in steps" | "at once" = "in steps";

  constructor() {
    super((path, owner) => NamedPipe.create(path, owner));
  }

  override begin(options: Parameters<HeldSaves["begin"]>[0]): ReturnType<HeldSaves["begin"]> {
    const held = super.begin(options);
    if (held !== undefined) this.begun = "at once";
    return held;
  }

  override note(kind: string, stateBytes: number): void {
    super.note(kind, stateBytes);
    Object.assign(this, { kind, sizeBytes: stateBytes });
  }
}

describe("a guest that is not handed over after all", () => {
  it("has nothing left of what was prepared, and is saved at once the next time", async () => {
    const heldSaves = new Noting();
    const { emulator } = await boot({ name: "guest", start: { heldSaves } });
    const left = () => readdirSync(dirname(emulator.ramPath)).filter((name) => name.includes("device-state"));
    const snapshot = () => emulator.snapshot({ onStopped: () => {}, atInstant: () => {} });
    await emulator.prepareDeviceState();
    await snapshot();
    await emulator.prepareDeviceState({ handOver: true });
    assert.equal(left().length, 1);
    emulator.forgetDeviceState();
    assert.deepEqual(left(), []);
    // Nor is it in the way where whoever prepared it has gone without a word.
    await emulator.prepareDeviceState({ handOver: true });
    heldSaves.begun = "in steps";
    await emulator.prepareDeviceState();
    await snapshot();
    assert.equal(heldSaves.begun, "at once");
    assert.deepEqual(left(), []);
  });
});

describe("a guest whose device state has grown", () => {
  it("runs on, is saved in steps the next time, and at once again when its size is known", async () => {
    const heldSaves = new Noting();
    const parent = await boot({ name: "parent", cpus: 8, start: { heldSaves } });
    const snapshot = async () => {
      await parent.emulator.prepareDeviceState();
      return parent.emulator.snapshot({ onStopped: () => {}, atInstant: () => {} });
    };
    await snapshot();
    assert.ok(heldSaves.sizeBytes > 32 * 1024);
    heldSaves.note(heldSaves.kind, 23 * 1024);
    await assert.rejects(snapshot(), { code: "ran-on" });
    assert.equal(await parent.emulator.status(), "running");
    for (const way of ["in steps", "at once", "at once"]) {
      heldSaves.begun = "in steps";
      const { compose, stoppedAtUs, resumedAtUs } = await snapshot();
      assert.equal(heldSaves.begun, way);
      assert.ok(resumedAtUs > stoppedAtUs);
      const { machine } = decodeDeviceState(Buffer.from(compose()));
      assert.equal(machine, parent.emulator.config.machine);
      assert.equal(await parent.emulator.status(), "running");
    }
    assert.equal((await ask<Counter>(parent, "/counter")).counter, 1);
  });
});

describe("the generation id", () => {
  it("is noticed by the guest when it differs, and only then", async () => {
    const generation = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87";
    const parent = await boot({ name: "parent", vmgenid: generation });
    const same = await forkOf(parent, { name: "same", vmgenid: generation });
    const other = await forkOf(parent, { name: "other", vmgenid: "424e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87" });
    // The program looks every 50 ms of guest time, which 100 ticks surely are.
    for (const guest of [parent, same, other]) {
      const { ticks } = await ask<Counter>(guest, "/counter");
      while ((await ask<Counter>(guest, "/counter")).ticks < ticks + 100);
    }
    const [ofParent, ofSame, ofOther] = await Promise.all(
      [parent, same, other].map((guest) => ask<Identity>(guest, "/vmgenid")),
    );
    assert.deepEqual([ofParent?.vmgenid, ofParent?.changes], [generation, 0]);
    assert.deepEqual([ofSame?.vmgenid, ofSame?.changes], [generation, 0]);
    // By the program, or by a kernel that has the driver.
    const reseeds = Math.max(ofOther?.reseeds ?? 0, ofOther?.kernel_reseeds ?? 0);
    assert.deepEqual([ofOther?.changes, reseeds], [1, 1]);
  });
});

describe("a child", () => {
  it("may have another kind of network than its parent", async () => {
    const parent = await boot({ name: "parent" });
    const { counter } = await ask<Counter>(parent, "/counter");
    const child = await forkOf(parent, {
      name: "child",
      network: { mode: "isolated", mac: "52:54:00:12:34:56" },
    });
    assert.equal(await child.emulator.status(), "running");
    const back = await forkOf(child, { name: "back" });
    assert.equal((await ask<Counter>(back, "/counter")).counter, counter + 1);
  });

  it("hands over to another emulator and ends", async () => {
    const parent = await boot({ name: "parent" });
    const { boot_id } = await ask<Counter>(parent, "/counter");
    const child = await lab.start({ name: "child", incoming: true });
    await parent.emulator.prepareDeviceState({ handOver: true });
    await parent.emulator.stop();
    const state = (await parent.emulator.saveDeviceState({ handOver: true })).compose();
    await parent.emulator.quit();
    assert.equal((await parent.exited).cause, "asked");
    const { execFileSync } = await import("node:child_process");
    execFileSync("dd", [
      `if=${parent.emulator.ramPath}`,
      `of=${child.emulator.ramPath}`,
      "bs=64K",
      "conv=notrunc,sparse",
      "status=none",
    ]);
    await child.emulator.loadDeviceState(state);
    await child.emulator.resume();
    await child.emulator.announce();
    assert.equal((await ask<Counter>(child, "/counter")).boot_id, boot_id);
  });
});
