import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";
import { readRecord, type GuestRecord } from "../../../src/agent/guests/guest-record.js";
import { resumePaused } from "../../../src/agent/guests/resume-paused.js";
import { noteReceived, noteStandsStill } from "../../../src/agent/guests/stands-still.js";
import { RecordFile } from "../../../src/agent/transfers/transfer-record.js";
import { GuestError } from "../../../src/guest/index.js";
import { FakeHost } from "./fake-host.js";
import { fakeChildRecord, FakeEmulator, fakeRecord } from "./fakes.js";

describe("a guest that stands still in its emulator", () => {
  let host: FakeHost;
  beforeEach(async () => (host = await FakeHost.make()));
  afterEach(() => host.remove());

  /** Found so by a new agent, with the record of a child beside it where there is one. */
  async function found(record: Partial<GuestRecord>, child?: Parameters<typeof fakeChildRecord>[0]) {
    const emulator = new FakeEmulator();
    const left = await host.leave({ ...fakeRecord({ state: "paused" }), ...record }, { emulator });
    const registry = await host.open();
    const guest = registry.find("web");
    if (child !== undefined)
      RecordFile.create(host.paths.guestMemory(left.config.id), fakeChildRecord(child));
    return { guest, emulator, resume: (options = {}) => resumePaused(host, guest, options) };
  }

  test("is let run on; one that cannot stays as it is, and may be tried again", async () => {
    const { guest, emulator, resume } = await found({ message: "it stands still since an exchange failed" });
    const { resume: works } = emulator;
    emulator.resume = () => Promise.reject(new GuestError("command-failed", "a disk is taken"));
    await assert.rejects(resume(), { code: "command-failed", message: /a disk is taken/ });
    assert.deepEqual(
      [guest.state, guest.record.message],
      ["paused", "it stands still since an exchange failed"],
    );
    emulator.resume = works;
    await assert.rejects(resume({ emulator: "10.0" }), { code: "bad-request", message: /ramet exchange/ });
    const { guest: view, stoodStillMs } = await resume();
    assert.deepEqual([view.state, stoodStillMs], ["running", undefined]);
    assert.deepEqual([guest.state, guest.record.message, emulator.calls], ["running", undefined, ["resume"]]);
    await assert.rejects(resume(), { code: "bad-state", message: /is running; it must be paused/ });
  });

  test("is not let run on while it may run elsewhere", async () => {
    const outgoing = { transfer: 7, host: "b" };
    const { emulator, resume } = await found({ outgoing });
    await assert.rejects(resume(), { code: "bad-state", message: /migration to b, .* ramet rollback web/ });
    assert.deepEqual(emulator.calls, []);
  });

  test("is not let run on as a child that is held, or that will never be complete", async () => {
    const { emulator, resume, guest } = await found({}, { transfer: 7, step: "loaded", complete: {} });
    await assert.rejects(resume(), { code: "bad-state", message: /held; ramet resume 7/ });
    const failed = fakeChildRecord({ transfer: 7, step: "running", failed: "its parent is gone" });
    RecordFile.create(host.paths.guestMemory(guest.id), failed);
    await assert.rejects(resume(), { code: "bad-state", message: /lacks memory/ });
    assert.deepEqual(emulator.calls, []);
  });

  /** A child that is received, and whose emulator could not go on after an exchange that failed. */
  async function received() {
    const there = await found({ state: "receiving" });
    const { guest, emulator } = there;
    const leave = guest.occupy({ what: "receiving its memory", transfers: [7] });
    noteStandsStill(guest, guest.live, "an exchange of its emulator failed", new Error("no answer"));
    emulator.calls.length = 0;
    return { ...there, leave };
  }

  test("while its memory is received is shown as paused, and is let run on all the same", async () => {
    const { guest, emulator, resume } = await received();
    const { state, message } = guest.view();
    assert.deepEqual([guest.state, state], ["receiving", "paused"]);
    assert.match(message ?? "", /stands still since an exchange .* failed; ramet resume web .*: no answer$/);
    await guest.saved();
    const kept = await readRecord(host.paths.record(guest.id));
    assert.deepEqual([kept?.state, kept?.standsStill], ["receiving", true]);
    guest.isHeld = () => true;
    await assert.rejects(resume(), { code: "bad-state", message: /its transfer keeps it/ });
    guest.isHeld = () => false;
    await assert.rejects(resume({ emulator: "10.0" }), { code: "bad-request" });
    await resume();
    assert.deepEqual(emulator.calls, ["resume"]);
    assert.deepEqual([guest.view().state, guest.view().message], ["receiving", undefined]);
  });

  test("is not said to run when its last page comes, and is let run on then", async () => {
    const { guest, resume, leave } = await received();
    noteReceived(guest, { runs: true });
    leave();
    assert.equal(guest.state, "paused");
    assert.match(guest.record.message ?? "", /ramet resume web/);
    assert.equal((await resume()).guest.state, "running");
  });

  test("runs when its emulator says so, however late", async () => {
    const { guest, emulator } = await received();
    emulator.say("STOP");
    assert.equal(guest.view().state, "paused");
    emulator.say("RESUME");
    assert.deepEqual([guest.view().state, guest.view().message], ["receiving", undefined]);
  });
});
