import assert from "node:assert/strict";
import { DiskError } from "../../../src/disk/errors.js";
import { detectFormat } from "../../../src/disk/image-format.js";
import { MAX_DISK_BYTES, SECTOR_BYTES } from "../../../src/disk/limits.js";
import { checkQcow2Header } from "../../../src/disk/qcow2-header.js";
import { orRefusal, type Target } from "../engine/target.js";

const SMALL_BYTES = 256 * 1024;
const FILE_BYTES = 1024 * 1024;

/** The header of a sound file of 64 MiB, with extensions of these types and lengths. */
function header(version: 2 | 3, extensions: readonly [type: number, length: number][] = []): Buffer {
  const bytes = Buffer.alloc(512);
  bytes.writeUInt32BE(0x514649fb, 0);
  bytes.writeUInt32BE(version, 4);
  bytes.writeUInt32BE(16, 20);
  bytes.writeBigUInt64BE(64n * 1024n ** 2n, 24);
  bytes.writeUInt32BE(1, 36);
  bytes.writeBigUInt64BE(0x30000n, 40);
  bytes.writeBigUInt64BE(0x10000n, 48);
  bytes.writeUInt32BE(1, 56);
  if (version === 3) bytes.writeUInt32BE(104, 100);
  let at = version === 3 ? 104 : 72;
  for (const [type, length] of extensions) {
    bytes.writeUInt32BE(type, at);
    bytes.writeUInt32BE(length, at + 4);
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return bytes;
}

function changed(bytes: Buffer, offset: number, value: number): Buffer {
  bytes.writeUInt8(value, offset);
  return bytes;
}

/** The header of a file that somebody wants to import. What passes is read by qemu-img, so nothing may pass that would lead it to another file. */
export const diskQcow2: Target = {
  name: "disk-qcow2",
  covers: ["src/disk/qcow2-header.ts", "src/disk/image-format.ts"],
  format: "bytes",
  maxInputBytes: 4096,
  allocationBytes: (inputBytes) => SMALL_BYTES + inputBytes * 64,
  *seeds() {
    yield header(2);
    yield header(3);
    yield header(3, [
      [0x6803f857, 144],
      [0x23852875, 24],
    ]);
    yield header(3, [[0x44415441, 9]]);
    yield header(2, [[0x0537be77, 16]]);
    yield changed(header(3), 79, 4);
    yield changed(header(3), 79, 0x18);
    yield changed(header(3), 15, 200);
    yield changed(header(3), 35, 2);
    yield header(3).subarray(0, 80);
  },
  run(input) {
    return orRefusal(DiskError, () => {
      const format = detectFormat(input.subarray(0, 512), "file");
      const { sizeBytes } = checkQcow2Header(input, { path: "file", fileBytes: FILE_BYTES });
      assert.ok(sizeBytes > 0 && sizeBytes <= MAX_DISK_BYTES && sizeBytes % SECTOR_BYTES === 0);
      const version = input.readUInt32BE(4);
      assert.ok(
        input.subarray(8, 16).every((byte) => byte === 0),
        "there is no backing file",
      );
      assert.equal(input.readUInt32BE(32), 0, "there is no encryption");
      assert.ok(version === 2 || (input.readUInt8(79) & 0x06) === 0, "there is no data file and no damage");
      return `${format} ${version}`;
    });
  },
};
