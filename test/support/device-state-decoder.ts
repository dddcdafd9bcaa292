/** Reads a composed device state as an emulator would (QEMU, docs/devel/migration.rst), for tests. */
import { strict as assert } from "node:assert";

export interface DecodedState {
  machine: string;
  targetPageBits: number | undefined;
  blocks: { name: string; usedBytes: number; pages: Map<number, Buffer> }[];
  totalBytes: number;
  /** All that follows the `ram` section. */
  devices: Buffer;
}

class Reader {
  at = 0;
  readonly bytes: Buffer;

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes);
  }

  take(count: number): Buffer {
    assert.ok(this.at + count <= this.bytes.length, "the stream ends early");
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  u8(): number {
    return this.take(1).readUInt8();
  }

  u32(): number {
    return this.take(4).readUInt32BE();
  }

  u64(): number {
    return Number(this.take(8).readBigUInt64BE());
  }

  name(): string {
    return this.take(this.u8()).toString("latin1");
  }
}

function readMemory(reader: Reader): Pick<DecodedState, "blocks" | "totalBytes"> {
  const head = reader.u64();
  assert.equal(head & 0xfff, 0x04, "the section begins with the blocks' sizes");
  const totalBytes = head - 0x04;
  const blocks: DecodedState["blocks"] = [];
  for (let listed = 0; listed < totalBytes;) {
    const block = { name: reader.name(), usedBytes: reader.u64(), pages: new Map<number, Buffer>() };
    blocks.push(block);
    listed += block.usedBytes;
  }
  let current: (typeof blocks)[number] | undefined;
  for (;;) {
    const word = reader.u64();
    const flags = word & 0xfff;
    if (flags === 0x10) return { blocks, totalBytes };
    if ((flags & 0x20) === 0) {
      const name = reader.name();
      current = blocks.find((block) => block.name === name);
    }
    assert.ok(current !== undefined, "a page belongs to a listed block");
    const offset = word - flags;
    assert.ok(offset < current.usedBytes, "a page lies in its block");
    if ((flags & ~0x20) === 0x02) {
      assert.equal(reader.u8(), 0);
      current.pages.set(offset, Buffer.alloc(4096));
    } else {
      assert.equal(flags & ~0x20, 0x08, "a page is zero or data");
      current.pages.set(offset, Buffer.from(reader.take(4096)));
    }
  }
}

/** Throws on anything an emulator would refuse. */
export function decodeDeviceState(bytes: Uint8Array): DecodedState {
  const reader = new Reader(bytes);
  assert.equal(reader.take(4).toString("latin1"), "QEVM");
  assert.equal(reader.u32(), 3);
  assert.equal(reader.u8(), 0x07, "the configuration section comes first");
  const machine = reader.take(reader.u32()).toString("latin1");
  let targetPageBits: number | undefined;
  let kind = reader.u8();
  if (kind === 0x05) {
    assert.equal(reader.name(), "configuration/target-page-bits");
    assert.equal(reader.u32(), 1);
    targetPageBits = reader.u32();
    kind = reader.u8();
  }
  assert.equal(kind, 0x01, "the ram section comes second");
  const id = reader.u32();
  assert.equal(reader.name(), "ram");
  assert.equal(reader.u32(), 0);
  assert.equal(reader.u32(), 4);
  const memory = readMemory(reader);
  assert.equal(reader.u8(), 0x7e);
  assert.equal(reader.u32(), id);
  return { machine, targetPageBits, ...memory, devices: Buffer.from(reader.bytes.subarray(reader.at)) };
}
