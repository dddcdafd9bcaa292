/**
 * Writes an initramfs: an uncompressed cpio archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/
 * buffer-format.rst). Of our own because cpio is not installed everywhere, and device nodes need no root this way.
 *
 * Usage: write-initramfs OUTPUT ENTRY... where an entry is one of
 *   file:PATH-IN-GUEST:MODE:SOURCE   dir:PATH-IN-GUEST   link:PATH-IN-GUEST:TARGET   console:PATH-IN-GUEST
 */
import { readFileSync, writeFileSync } from "node:fs";

interface Entry {
  path: string;
  mode: number;
  data: Buffer;
  device?: { major: number; minor: number };
}

const FILE = 0o100000;
const DIRECTORY = 0o040000;
const LINK = 0o120000;
const CHARACTER_DEVICE = 0o020000;

function hex(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, "0");
}

function padTo4(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}

function encodeEntry(entry: Entry, inode: number): Buffer {
  const name = Buffer.from(`${entry.path}\0`);
  const device = entry.device ?? { major: 0, minor: 0 };
  // Magic, then inode, mode, uid, gid, links, time, size, device, the device the node stands for, length of name, checksum.
  const fields = [
    inode,
    entry.mode,
    0,
    0,
    1,
    0,
    entry.data.length,
    0,
    0,
    device.major,
    device.minor,
    name.length,
    0,
  ];
  const header = Buffer.from(`070701${fields.map(hex).join("")}`);
  return Buffer.concat([padTo4(Buffer.concat([header, name])), padTo4(entry.data)]);
}

function parseEntry(text: string): Entry {
  const [kind, path = "", third = "", ...rest] = text.split(":");
  const none = Buffer.alloc(0);
  switch (kind) {
    case "file":
      return { path, mode: FILE | parseInt(third, 8), data: readFileSync(rest.join(":")) };
    case "dir":
      return { path, mode: DIRECTORY | 0o755, data: none };
    case "link":
      return { path, mode: LINK | 0o777, data: Buffer.from(third) };
    case "console":
      return { path, mode: CHARACTER_DEVICE | 0o600, data: none, device: { major: 5, minor: 1 } };
    default:
      throw new Error(`write-initramfs: unknown entry ${text}`);
  }
}

const [output, ...entries] = process.argv.slice(2);
if (output === undefined) throw new Error("write-initramfs: the output's path is missing");
const trailer: Entry = { path: "TRAILER!!!", mode: 0, data: Buffer.alloc(0) };
const archive = [...entries.map(parseEntry), trailer].map((entry, index) => encodeEntry(entry, index + 1));
writeFileSync(output, Buffer.concat(archive));
