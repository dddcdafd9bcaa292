import { strict as assert } from "node:assert";
import { describe, it } from "node:test";
import {
  machineOf,
  StateWriter,
  writeDevices,
  writeMemoryEnd,
  writeMemoryStart,
  writePages,
  writeStart,
} from "../../../src/guest/device-state.js";
import { GuestError, MAX_DEVICE_STATE_BYTES } from "../../../src/guest/index.js";
import { decodeDeviceState } from "../../support/device-state-decoder.js";

const MAGIC = Buffer.from("QEVM\0\0\0\x03", "latin1");

/** A device's section as an emulator writes it. */
function section(id: number, name: string, data: Buffer): Buffer {
  const numbers = (...values: number[]) => {
    const bytes = Buffer.alloc(values.length * 4);
    values.forEach((value, index) => bytes.writeUInt32BE(value, index * 4));
    return bytes;
  };
  const head = [Buffer.of(0x04), numbers(id), Buffer.of(name.length), Buffer.from(name), numbers(0, 1)];
  return Buffer.concat([...head, data, Buffer.of(0x7e), numbers(id)]);
}

function savedOf(...sections: Buffer[]): Buffer {
  return Buffer.concat([MAGIC, ...sections, Buffer.of(0)]);
}

function devicesOf(saved: Buffer): Buffer {
  const writer = new StateWriter(16);
  writeDevices(writer, saved);
  return writer.finish();
}

const page = (fill: number) => Buffer.alloc(4096, fill);
const refused = (error: unknown) => error instanceof GuestError && error.code === "bad-device-state";

describe("a composed device state", () => {
  it("is what an emulator reads back", () => {
    const bios = Buffer.concat([page(1), page(0), page(2)]);
    const blocks = [
      { name: "pc.bios", usedBytes: bios.length },
      { name: "/rom@etc/acpi/tables", usedBytes: 8192 },
    ];
    const saved = savedOf(section(3, "timer", Buffer.from("abc")));
    const writer = new StateWriter(100);
    writeStart(writer, { machine: "pc-q35-7.2", architecture: "x86_64" });
    writeMemoryStart(writer, blocks);
    writePages(writer, "pc.bios", 0, bios);
    writePages(writer, "/rom@etc/acpi/tables", 4096, page(7));
    writeMemoryEnd(writer);
    writeDevices(writer, saved);
    const state = decodeDeviceState(writer.finish());
    assert.equal(state.machine, "pc-q35-7.2");
    assert.equal(state.targetPageBits, undefined);
    assert.equal(state.totalBytes, bios.length + 8192);
    assert.deepEqual(Buffer.concat([...(state.blocks[0]?.pages.values() ?? [])]), bios);
    assert.deepEqual([...(state.blocks[1]?.pages ?? [])], [[4096, page(7)]]);
    assert.deepEqual(state.devices, saved.subarray(8));
    assert.equal(machineOf(writer.finish()), "pc-q35-7.2");
  });

  it("names Arm's page size", () => {
    const writer = new StateWriter(100);
    writeStart(writer, { machine: "virt-7.2", architecture: "aarch64" });
    writeMemoryStart(writer, []);
    writeMemoryEnd(writer);
    writeDevices(writer, savedOf());
    assert.equal(decodeDeviceState(writer.finish()).targetPageBits, 12);
  });

  it("says a zero page in a few bytes", () => {
    const writer = new StateWriter(100);
    writePages(writer, "pc.bios", 0, Buffer.alloc(16 * 4096));
    assert.ok(writer.length < 16 * 10);
  });

  it("is refused when it grows beyond its limit", () => {
    const writer = new StateWriter(16);
    assert.throws(() => writer.bytes({ length: MAX_DEVICE_STATE_BYTES + 1 } as Uint8Array), refused);
  });

  it("can have offsets beyond 4 GiB", () => {
    const writer = new StateWriter(16);
    writer.u64(0x1_0000_1008);
    assert.equal(writer.finish().toString("hex"), "0000000100001008");
  });
});

describe("the user-mode network's section", () => {
  const timer = section(3, "timer", Buffer.from("abc"));
  const cpu = section(9, "cpu", Buffer.from("xyz"));

  it("is left out", () => {
    assert.deepEqual(
      devicesOf(savedOf(timer, section(5, "slirp", Buffer.from("s")), cpu)),
      savedOf(timer, cpu).subarray(8),
    );
    assert.deepEqual(
      devicesOf(savedOf(timer, section(5, "slirp", Buffer.from("s")))),
      savedOf(timer).subarray(8),
    );
  });

  it("is found to its end, even when it holds what looks like it", () => {
    const footer = Buffer.of(0x7e, 0, 0, 0, 5);
    const tricky = section(
      5,
      "slirp",
      Buffer.concat([footer, Buffer.of(0x99), footer, Buffer.of(0x00), Buffer.from("rest")]),
    );
    assert.deepEqual(devicesOf(savedOf(tricky, cpu)), savedOf(cpu).subarray(8));
  });

  it("is not mistaken for a device that mentions it", () => {
    const mention = section(4, "other", Buffer.from("\x05slirp\0\0\0\0"));
    assert.deepEqual(devicesOf(savedOf(timer, mention, cpu)), savedOf(timer, mention, cpu).subarray(8));
  });
});

describe("bytes that are no device state", () => {
  for (const [what, bytes] of [
    ["nothing", Buffer.alloc(0)],
    ["another magic", Buffer.concat([Buffer.from("QEVN\0\0\0\x03"), Buffer.of(0)])],
    [
      "a section that seems to end in too many places",
      savedOf(section(5, "slirp", Buffer.alloc(1000, Buffer.of(0x7e, 0, 0, 0, 5))), Buffer.of(0x99)),
    ],
    [
      "a section that seems to start in too many places",
      savedOf(Buffer.alloc(2000, section(5, "slirp", Buffer.alloc(0)).subarray(0, 15))),
    ],
    ["a state that was cut off", savedOf(section(3, "timer", Buffer.from("abc"))).subarray(0, -1)],
  ] as const) {
    it(`are refused: ${what}`, () => assert.throws(() => devicesOf(bytes), refused));
  }

  for (const [what, bytes] of [
    ["nothing", Buffer.alloc(0)],
    ["what an emulator saved, not composed", savedOf(section(3, "timer", Buffer.from("abc")))],
    [
      "a machine's name that is cut off",
      Buffer.concat([MAGIC, Buffer.of(7, 0, 0, 0, 10), Buffer.from("pc")]),
    ],
    ["a machine's name of 4 GB", Buffer.concat([MAGIC, Buffer.of(7, 255, 255, 255, 255), Buffer.from("pc")])],
  ] as const) {
    it(`are refused for loading: ${what}`, () => assert.throws(() => machineOf(bytes), refused));
  }
});
