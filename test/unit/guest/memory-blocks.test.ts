import { strict as assert } from "node:assert";
import { describe, it } from "node:test";
import {
  blocksToCarry,
  candidatesFor,
  kindOf,
  parseBlockList,
  parsePlace,
  placeQuestion,
} from "../../../src/guest/memory-blocks.js";

/** As QEMU 7.2 and 10.0 print it. */
const OLD = `              Block Name    PSize              Offset               Used              Total
                     ram    4 KiB  0x0000000000000000 0x0000000010000000 0x0000000010000000
    /rom@etc/acpi/tables    4 KiB  0x0000000010080000 0x0000000000020000 0x0000000000200000
                 pc.bios    4 KiB  0x0000000010000000 0x0000000000040000 0x0000000000040000\r
`;
const NEW = `              Block Name    PSize              Offset               Used              Total                HVA  RO
                     ram    4 KiB  0x0000000000000000 0x0000000010000000 0x0000000010000000 0x00007f874bfff000  rw
                 pc.bios    4 KiB  0x0000000010000000 0x0000000000040000 0x0000000000040000 0x00007f87a0800000  ro
`;

const MAPS = `7f1ae4bff000-7f1ae4e00000 rw-p 00000000 00:00 0
7f1ae4e00000-7f1ae4e01000 rw-p 00000000 00:00 0
7f1ae4e01000-7f1ae4e02000 ---p 00000000 00:00 0
7f1ae5000000-7f1ae5200000 rw-p 00000000 00:00 0
7f1ae5200000-7f1ae5201000 ---p 00000000 00:00 0
7f1ae6000000-7f1ae6200000 rw-p 00000000 00:00 0
7f1ae6400000-7f1ae6600000 rw-p 00000000 00:00 0
7f1ae6600000-7f1ae6700000 ---p 00000000 00:00 0
7f1ae6847000-7f1ae6a47000 rw-p 00000000 00:00 0
7f1ae6a47000-7f1ae6a48000 ---p 00000000 00:00 0
7f1ae7000000-7f1ae7040000 rw-s 00000000 00:05 77 /dev/zero (deleted)
7f1ae7040000-7f1ae7041000 ---p 00000000 00:00 0
`;

describe("the list of memory blocks", () => {
  it("is read from an emulator that does not tell where they are", () => {
    assert.deepEqual(blocksToCarry(parseBlockList(OLD)), [
      { name: "/rom@etc/acpi/tables", usedBytes: 0x20000, totalBytes: 0x200000 },
      { name: "pc.bios", usedBytes: 0x40000, totalBytes: 0x40000 },
    ]);
  });

  it("is read from one that does", () => {
    assert.deepEqual(blocksToCarry(parseBlockList(NEW)), [
      { name: "pc.bios", usedBytes: 0x40000, totalBytes: 0x40000, address: 0x7f87a0800000 },
    ]);
  });

  it("is refused when a line is not understood", () => {
    assert.throws(() => parseBlockList(`${OLD}   odd line\n`), /has a line that is not understood/);
    assert.throws(
      () => parseBlockList(NEW.replace("0x00007f87a0800000", "")),
      /has a line that is not understood/,
    );
  });

  it("is refused when its numbers cannot be", () => {
    const huge = OLD.replace(
      "0x0000000000040000 0x0000000000040000",
      "0xffffffffffffffff 0xffffffffffffffff",
    );
    assert.throws(() => parseBlockList(huge), /pc\.bios has impossible numbers/);
    const moreThanAll = OLD.replace(
      "0x0000000000040000 0x0000000000040000",
      "0x0000000000040001 0x0000000000040000",
    );
    assert.throws(() => parseBlockList(moreThanAll), /pc\.bios has impossible numbers/);
  });

  it("is refused when it would not fit in the agent's memory", () => {
    const block = { name: "pc.bios", usedBytes: 40 * 1024 * 1024, totalBytes: 40 * 1024 * 1024 };
    assert.equal(blocksToCarry([block]).length, 1);
    for (const more of [
      block,
      { ...block, name: "pc.rom" },
      { ...block, name: "virt.flash0", usedBytes: 2 ** 40 },
    ]) {
      assert.throws(() => blocksToCarry([block, more]), { code: "unsupported-memory" });
    }
  });

  it("knows how each is carried, and refuses what nobody has thought about", () => {
    assert.equal(kindOf("pc.bios"), "fixed");
    assert.equal(kindOf("/rom@etc/table-loader"), "changing");
    assert.equal(kindOf("virt.flash1"), "sparse");
    assert.throws(() => kindOf("0000:00:02.0/vga.vram"), /vga\.vram.*cannot be carried/);
  });
});

describe("the place of a memory block", () => {
  it("is the aligned mapping of its size with a guard page behind", () => {
    const block = { name: "/rom@etc/acpi/tables", usedBytes: 0x20000, totalBytes: 0x200000 };
    assert.deepEqual(candidatesFor(block, MAPS), [0x7f1ae5000000]);
    assert.deepEqual(candidatesFor({ ...block, totalBytes: 0x1000 }, MAPS), [0x7f1ae4e00000]);
    assert.deepEqual(candidatesFor({ ...block, totalBytes: 0x40000 }, MAPS), []);
  });

  it("of flash is asked for, since there are two alike", () => {
    const flash = { name: "virt.flash1", usedBytes: 0x4000000, totalBytes: 0x4000000 };
    assert.equal(placeQuestion(flash), "gpa2hva 0x4000000");
    const answer = (name: string) => `Host virtual address for 0x4000000 (${name}) is 0x7f0f8bc00000\r\n`;
    assert.equal(parsePlace(flash, answer("virt.flash1")), 0x7f0f8bc00000);
    assert.equal(parsePlace(flash, answer("ram")), undefined);
    assert.equal(parsePlace(flash, "No memory is mapped at address 0x4000000"), undefined);
    assert.equal(placeQuestion({ ...flash, name: "pc.bios" }), undefined);
  });
});
