import assert from "node:assert/strict";
import { existsSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import type { GuestRecord } from "../../../src/agent/guests/guest-record.js";
import type { Services } from "../../../src/agent/services.js";
import { Exchanges } from "../../../src/agent/exchange/exchanges.js";
import { EmulatorCatalogue } from "../../../src/agent/guests/emulator-catalogue.js";
import { giveUpSuspended } from "../../../src/agent/suspend/found-suspension.js";
import { resumeGuest } from "../../../src/agent/suspend/resume-guest.js";
import { suspendGuest } from "../../../src/agent/suspend/suspend-guest.js";
import { SuspensionFiles, type SuspensionRecord } from "../../../src/agent/suspend/suspension-record.js";
import { realClock, silentLog } from "../../../src/base/index.js";
import { FakeHost } from "./fake-host.js";
import { FakeEmulator, fakeRecord } from "./fakes.js";

const MIB = 1024 * 1024;
const QEMU = { path: "/bin/qemu", architecture: "x86_64" as const, dataDirectories: [] };
const STATE = new TextEncoder().encode("a device state");

let host: FakeHost;

beforeEach(async () => (host = await FakeHost.make()));
afterEach(() => host.remove());

/** Leaves a guest as an agent does that ends at this step. */
async function leave(
  step: SuspensionRecord["step"] | undefined,
  options: { state?: GuestRecord["state"]; emulator?: FakeEmulator } = {},
): Promise<{ record: GuestRecord; files: SuspensionFiles }> {
  const { state = "running", emulator } = options;
  const record = await host.leave(fakeRecord({ state }), emulator === undefined ? undefined : { emulator });
  const { id, memoryBytes } = record.config;
  writeFileSync(host.paths.ram(id), "");
  truncateSync(host.paths.ram(id), memoryBytes);
  const files = new SuspensionFiles(host.paths, id);
  const saved = await files.writeState(STATE);
  const before = { version: 1 as const, emulatorVersion: "7.2.22", stoppedAtMs: 1 };
  if (step !== undefined)
    await files.write({ ...before, step, ...(step === "saving" ? {} : { state: saved }) });
  writeFileSync(join(host.paths.guestMemory(id), "suspended.json.0011.unfinished"), "{");
  return { record, files };
}

function servicesOf(registry: Services["registry"]): Services {
  const probe = () =>
    Promise.resolve({ binary: "/bin/qemu", version: "7.2.22", machines: ["pc-q35-7.2"], accelerators: [] });
  const catalogue = new EmulatorCatalogue({ probe: probe, configured: [QEMU], log: silentLog });
  const { paths, source, boot, admission } = host;
  const parts = {
    registry,
    catalogue,
    paths,
    source,
    boot,
    admission,
    exchanges: new Exchanges(),
    clock: realClock,
  };
  return parts as unknown as Services;
}

describe("a guest that an agent left on its way out of its emulator", () => {
  for (const state of ["running", "suspended"] as const) {
    test(`is suspended once all of it is saved, though its record says ${state}`, async () => {
      const { record } = await leave("saved", { state });
      const { id } = record.config;
      const guest = (await host.open()).find("web");
      assert.equal(guest.state, "suspended");
      assert.deepEqual(host.source.ended, [id], "whatever emulator there was");
      assert.equal(host.admission.reservedBytes, 256 * MIB);
      assert.equal(guest.view().suspended?.stateBytes, STATE.length);
      assert.deepEqual(
        readdirSync(host.paths.guestMemory(id)).filter((name) => name.endsWith("unfinished")),
        [],
      );
      await giveUpSuspended(host, guest);
      assert.deepEqual([guest.state, host.admission.reservedBytes], ["stopped", 0]);
      assert.equal(existsSync(host.paths.guestMemory(id)), false);
    });
  }

  for (const step of ["saving", "told"] as const) {
    test(`is its emulator's while the record says ${step}, which lets it run`, async () => {
      const emulator = new FakeEmulator();
      const { files } = await leave(step, { state: step === "told" ? "suspended" : "running", emulator });
      const guest = (await host.open()).find("web");
      assert.deepEqual([guest.state, guest.hasEmulator], ["running", true]);
      assert.deepEqual(emulator.calls, ["resume"]);
      assert.deepEqual([files.read(), files.stateBytes], [undefined, 0]);
    });

    test(`has crashed without that emulator while the record says ${step}`, async () => {
      await leave(step, { state: step === "told" ? "suspended" : "running" });
      assert.equal((await host.open()).find("web").state, "crashed");
      assert.equal(host.admission.reservedBytes, 0);
    });
  }

  test("is not taken up again after it was given up", async () => {
    const { record } = await leave("saved", { state: "stopped" });
    assert.equal((await host.open()).find("web").state, "stopped");
    assert.equal(existsSync(host.paths.guestMemory(record.config.id)), false);
  });

  test("stays suspended without its memory, and says where that belongs", async () => {
    const { record } = await leave("saved", { state: "suspended" });
    rmSync(host.paths.guestMemory(record.config.id), { recursive: true });
    const registry = await host.open();
    const guest = registry.find("web");
    assert.equal(guest.state, "suspended");
    assert.match(guest.view().message ?? "", /there is no memory there.*Bring that directory back/);
    assert.equal(host.admission.reservedBytes, 0);
    await assert.rejects(resumeGuest(servicesOf(registry), guest, { emulator: QEMU.path }), {
      code: "not-ready",
    });
    await registry.remove(guest);
  });

  test("is left alone when its record cannot be read", async () => {
    const { record } = await leave(undefined, { state: "suspended" });
    writeFileSync(host.paths.suspension(record.config.id), '{"version":2}');
    const registry = await host.open();
    assert.match(
      registry.find("web").view().message ?? "",
      /suspended\.json is not a suspended guest's record/,
    );
    assert.equal(registry.isWhole, false);
    assert.deepEqual(host.source.ended, []);
  });
});

describe("a suspended guest", () => {
  test("stays one when no emulator takes it", async () => {
    const { record, files } = await leave("saved");
    const { id } = record.config;
    const registry = await host.open();
    const guest = registry.find("web");
    const services = servicesOf(registry);
    // These emulators load nothing.
    await assert.rejects(resumeGuest(services, guest, { emulator: QEMU.path }), {
      code: "resume-failed",
      message: /could not be resumed in the emulator .*device state is of 7\.2\.22.*it is suspended/,
    });
    assert.deepEqual([guest.state, guest.hasEmulator, files.read()?.step], ["suspended", false, "saved"]);
    assert.deepEqual(host.source.launched[0]?.calls, ["kill"]);
    assert.equal(host.admission.reservedBytes, 256 * MIB, "its room is its own still");
    writeFileSync(host.paths.suspendedState(id), "something else");
    await assert.rejects(resumeGuest(services, guest, { emulator: QEMU.path }), {
      code: "bad-record",
      message: /changed or damaged/,
    });
    truncateSync(host.paths.ram(id), MIB);
    await assert.rejects(resumeGuest(services, guest, { emulator: QEMU.path }), {
      code: "bad-record",
      message: /has 1048576 bytes/,
    });
    await assert.rejects(suspendGuest(services, guest), { code: "bad-state", message: /ramet resume web/ });
    await registry.remove(guest);
    assert.equal(host.admission.reservedBytes, 0);
  });

  test("is one only when its emulator has saved it", async () => {
    const emulator = new FakeEmulator();
    emulator.state = "running";
    const record = await host.leave(fakeRecord(), { emulator });
    const registry = await host.open();
    const guest = registry.find("web");
    const services = servicesOf(registry);
    await assert.rejects(suspendGuest(services, guest), { code: "suspend-failed", message: /it is running/ });
    assert.deepEqual([guest.state, guest.occupation], ["running", undefined]);
    assert.deepEqual(readdirSync(host.paths.guestMemory(record.config.id)), []);
    assert.deepEqual(emulator.calls, ["forget"], "it was never stopped");
    emulator.forgetDeviceState = () => {
      throw new Error("a descriptor is gone");
    };
    await assert.rejects(suspendGuest(services, guest), { code: "suspend-failed", message: /it is running/ });
    assert.equal(guest.state, "running");
  });
});
