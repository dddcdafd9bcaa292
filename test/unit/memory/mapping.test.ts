import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MemoryError } from "../../../src/memory/index.js";
import { findMapping, findRegistration } from "../../../src/memory/mapping.js";

const FILE = { dev: 0x1b, ino: 113, pageCount: 0x300 };
const ELSEWHERE = "55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]\n";
const SAME_INODE =
  "7f0000000000-7f0000300000 rw-s 00000000 00:01 113                        /memfd:x (deleted)\n";
const WHOLE = "7f6c1bfff000-7f6c1c2ff000 rw-s 00000000 00:1b 113                        /dev/shm/guest\n";
const notMapped = (rule: RegExp) => (thrown: unknown) =>
  thrown instanceof MemoryError && thrown.code === "not-mapped" && rule.test(thrown.message);

describe("finding the memory file in /proc/PID/maps", () => {
  it("finds one area among others, by device and inode", () => {
    const mapping = findMapping(ELSEWHERE + SAME_INODE + WHOLE, FILE);
    assert.deepEqual(mapping, { address: 0x7f6c1bfff000, areaEnds: [0x300] });
  });

  it("finds several adjacent areas", () => {
    const maps =
      "7f6c1bfff000-7f6c1c0ff000 rw-s 00000000 00:1b 113  /dev/shm/guest\n" +
      "7f6c1c0ff000-7f6c1c1ff000 rw-s 00100000 00:1b 113  /dev/shm/guest\n" +
      "7f6c1c1ff000-7f6c1c2ff000 rw-s 00200000 00:1b 113  /dev/shm/guest\n";
    assert.deepEqual(findMapping(maps, FILE), { address: 0x7f6c1bfff000, areaEnds: [0x100, 0x200, 0x300] });
  });

  it("knows device numbers with large minors", () => {
    const maps = "7f6c1bfff000-7f6c1c2ff000 rw-s 00000000 08:10123 113  /dev/shm/guest\n";
    const dev = 8 * 256 + 0x23 + 0x101 * 0x100000;
    assert.equal(findMapping(maps, { ...FILE, dev }).address, 0x7f6c1bfff000);
  });

  it("refuses a file that is not mapped", () => {
    assert.throws(() => findMapping(ELSEWHERE + SAME_INODE, FILE), notMapped(/has not mapped/));
  });

  it("refuses a private mapping", () => {
    assert.throws(() => findMapping(WHOLE.replace("rw-s", "rw-p"), FILE), notMapped(/share=on/));
  });

  it("refuses pieces with a gap, the file mapped twice, and a part of the file", () => {
    const far = WHOLE.replaceAll("7f6c1", "7f6d1");
    const gap =
      "7f6c1bfff000-7f6c1c0ff000 rw-s 00000000 00:1b 113  /dev/shm/guest\n" +
      "7f6c1c1ff000-7f6c1c2ff000 rw-s 00200000 00:1b 113  /dev/shm/guest\n";
    assert.throws(() => findMapping(gap, FILE), notMapped(/pieces/));
    assert.throws(() => findMapping(WHOLE + far, FILE), notMapped(/pieces/));
    assert.throws(() => findMapping(WHOLE.replace(" 00000000 ", " 00100000 "), FILE), notMapped(/pieces/));
    assert.throws(
      () => findMapping(WHOLE, { ...FILE, pageCount: 0x400 }),
      notMapped(/768 of the 1024 pages/),
    );
  });
});

describe("finding the registration in /proc/PID/smaps", () => {
  const flags = (extra: string): string => `VmFlags: rd wr sh mr mw me ms ${extra}sd \n`;

  it("reads the flags of the memory file only", () => {
    assert.equal(findRegistration(WHOLE + flags("um "), FILE), "missing");
    assert.equal(findRegistration(WHOLE + flags("uw "), FILE), "write-protect");
    assert.equal(findRegistration(ELSEWHERE + flags("um ") + WHOLE + flags(""), FILE), undefined);
    assert.equal(findRegistration(WHOLE + flags("") + SAME_INODE + flags("um "), FILE), undefined);
    assert.equal(findRegistration("", FILE), undefined);
  });
});
