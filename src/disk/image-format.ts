import { DiskError } from "./errors.js";

/** What an image can be imported from. */
export type ImageFormat = "raw" | "qcow2";

/** Bytes at the start of a file by which its format is told. */
export const FORMAT_HEAD_BYTES = 512;

const QCOW2 = Buffer.from([0x51, 0x46, 0x49, 0xfb]);

/** What people have at hand and would otherwise become a raw disk that no guest can read. */
const FOREIGN: readonly { name: string; at: number; magic: Buffer; todo: string }[] = [
  ...(
    [
      ["VMDK", 0, Buffer.from("KDMV")],
      ["VMDK", 0, Buffer.from("COWD")],
      ["VMDK", 0, Buffer.from("# Disk DescriptorFile")],
      ["VHDX", 0, Buffer.from("vhdxfile")],
      ["VHD", 0, Buffer.from("conectix")],
      ["QED", 0, Buffer.from("QED\0")],
      ["VDI", 0x40, Buffer.from([0x7f, 0x10, 0xda, 0xbe])],
    ] as const
  ).map(([name, at, magic]) => ({ name, at, magic, todo: "qemu-img convert -O qcow2 FILE IMAGE" })),
  { name: "xz", at: 0, magic: Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]), todo: "xz --decompress FILE" },
  { name: "gzip", at: 0, magic: Buffer.from([0x1f, 0x8b, 0x08]), todo: "gzip --decompress FILE" },
  { name: "zstd", at: 0, magic: Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), todo: "zstd --decompress FILE" },
  { name: "bzip2", at: 0, magic: Buffer.from("BZh"), todo: "bzip2 --decompress FILE" },
];

/**
 * What a file is by its first bytes; raw when they are those of nothing else.
 * @throws DiskError `bad-image` for formats that are known and not taken, saying what to do.
 */
export function detectFormat(head: Uint8Array, path: string): ImageFormat {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  if (bytes.subarray(0, QCOW2.length).equals(QCOW2)) return "qcow2";
  const foreign = FOREIGN.find(({ at, magic }) => bytes.subarray(at, at + magic.length).equals(magic));
  if (foreign === undefined) return "raw";
  throw new DiskError(
    "bad-image",
    `${path} is ${foreign.name}, and images are imported from raw and qcow2 files: ${foreign.todo} makes one (or say --format raw, if these are a disk's own bytes)`,
  );
}
