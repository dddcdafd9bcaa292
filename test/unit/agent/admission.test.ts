import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Admission } from "../../../src/agent/guests/admission.js";
import { requireRoomAmong } from "../../../src/agent/guests/names.js";

const MIB = 1024 * 1024;

function roomOf(totalMib: number, freeMib: number, ownMib = 0) {
  return () => ({ totalBytes: totalMib * MIB, freeBytes: freeMib * MIB, ownBytes: ownMib * MIB });
}

describe("admission", () => {
  test("counts configured memory, used or not, up to the limit", () => {
    const admission = new Admission({ limitBytes: 1000 * MIB, reserveBytes: 0, room: roomOf(4000, 4000) });
    const first = admission.reserve(600 * MIB, "guest a");
    assert.throws(() => admission.reserve(401 * MIB, "guest b"), {
      code: "no-room",
      message:
        "guest b needs 401 MiB of memory, but the limit is 1000 MiB and 600 MiB are taken: " +
        "remove a guest, choose another host, or raise limits.memoryMib (--memory-limit-mib)",
    });
    admission.reserve(400 * MIB, "guest b");
    assert.equal(admission.freeBytes, 0);
    first.release();
    first.release();
    assert.equal(admission.freeBytes, 600 * MIB);
  });

  test("without a limit takes what the file system has, less the reserve", () => {
    assert.equal(
      new Admission({ limitBytes: undefined, reserveBytes: 256 * MIB, room: roomOf(1024, 1024) }).limitBytes,
      768 * MIB,
    );
    assert.equal(
      new Admission({ limitBytes: undefined, reserveBytes: 2048 * MIB, room: roomOf(1024, 1024) }).limitBytes,
      0,
    );
  });

  test("heeds what others have put on the file system, and does not count its own guests twice", () => {
    const admission = new Admission({
      limitBytes: 1000 * MIB,
      reserveBytes: 0,
      room: roomOf(1000, 300, 200),
    });
    admission.adopt(400 * MIB);
    assert.ok(admission.fits(100 * MIB));
    assert.throws(() => admission.reserve(101 * MIB, "guest c"), {
      code: "no-room",
      message: /file system has room for 500 MiB and 400 MiB are taken: .*make room on that file system/,
    });
  });
});

test("of memory and places that others take, a tenant's guest is not told in whatever the refusal is wrapped", () => {
  assert.throws(() => requireRoomAmong([], { name: "web@acme", id: undefined, maxGuests: 0 }), {
    code: "too-many-guests",
    message: /as many guests as it may have/,
  });
  const room = () => ({ totalBytes: 1000 * MIB, freeBytes: 1000 * MIB, ownBytes: 0 });
  const admission = new Admission({ limitBytes: 100 * MIB, reserveBytes: 0, room });
  admission.reserve(77 * MIB, "guest db@rival");
  assert.throws(() => admission.reserve(50 * MIB, "guest web@acme"), {
    code: "no-room",
    message:
      "guest web@acme needs 50 MiB of memory, which this host has not left: remove a guest, or choose another host",
  });
  assert.throws(() => admission.reserve(50 * MIB, "guest web"), { message: /77 MiB are taken/ });
});
