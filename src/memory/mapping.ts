import { readFileSync } from "node:fs";
import { codeOf, PAGE_BYTES } from "../base/index.js";
import { MemoryError } from "./errors.js";

/** Where the memory file lies in the emulator's address space: page `p` is at `address + p × 4096`. */
export interface Mapping {
  address: number;
  /** Page indexes at which one of the kernel's areas ends, ascending; the last one is the page count. */
  areaEnds: number[];
}

/** Which file to look for: device and inode as stat(2) gives them. */
export interface FileIdentity {
  dev: number;
  ino: number;
  pageCount: number;
}

/** One of the kernel's areas: a line of /proc/PID/maps, the head of a block of /proc/PID/smaps. */
interface Area {
  startBytes: number;
  endBytes: number;
  offsetBytes: number;
  shared: boolean;
  dev: number;
  ino: number;
}

/** proc(5): address perms offset dev inode path. */
const AREA = /^([0-9a-f]+)-([0-9a-f]+) ...(.) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+)/;

/** A device number in the form stat(2) has it in, from its two parts. */
function deviceNumber(major: number, minor: number): number {
  return major * 256 + (minor & 0xff) + (minor >>> 8) * 1048576;
}

function parseArea(line: string): Area | undefined {
  const parts = AREA.exec(line);
  if (parts === null) return undefined;
  const hex = (index: number): number => parseInt(parts[index] as string, 16);
  return {
    startBytes: hex(1),
    endBytes: hex(2),
    offsetBytes: hex(4),
    shared: parts[3] === "s",
    dev: deviceNumber(hex(5), hex(6)),
    ino: Number(parts[7]),
  };
}

function isOf(area: Area, file: FileIdentity): boolean {
  return area.dev === file.dev && area.ino === file.ino;
}

/**
 * Finds the memory file in the text of /proc/PID/maps. The kernel may have cut the mapping into several adjacent areas.
 * @throws MemoryError `not-mapped` unless all of the file is mapped as it should be, once, in one piece of addresses.
 */
export function findMapping(
  maps: string,
  file: FileIdentity,
  kind: "shared" | "private" = "shared",
): Mapping {
  let address: number | undefined;
  let pages = 0;
  const areaEnds: number[] = [];
  for (const line of maps.split("\n")) {
    const area = parseArea(line);
    if (area === undefined || !isOf(area, file)) continue;
    if (area.shared !== (kind === "shared")) {
      const how = area.shared
        ? "shared; its backend needs share=off"
        : "privately; its backend needs share=on";
      throw new MemoryError("not-mapped", `the emulator maps its memory file ${how}`);
    }
    address ??= area.startBytes;
    if (area.startBytes - area.offsetBytes !== address || area.offsetBytes !== pages * PAGE_BYTES) {
      throw new MemoryError(
        "not-mapped",
        "the emulator maps its memory file in pieces that do not follow each other",
      );
    }
    pages = (area.endBytes - address) / PAGE_BYTES;
    areaEnds.push(pages);
  }
  if (address === undefined)
    throw new MemoryError("not-mapped", "the emulator has not mapped its memory file");
  if (pages === file.pageCount) return { address, areaEnds };
  throw new MemoryError(
    "not-mapped",
    `the emulator maps ${pages} of the ${file.pageCount} pages of its memory file`,
  );
}

/** What the memory file's areas are registered for, from the text of /proc/PID/smaps: VmFlags `um` or `uw`, proc(5). */
export function findRegistration(smaps: string, file: FileIdentity): "missing" | "write-protect" | undefined {
  let inFile = false;
  for (const line of smaps.split("\n")) {
    const area = parseArea(line);
    if (area !== undefined) inFile = isOf(area, file);
    if (!inFile || !line.startsWith("VmFlags:")) continue;
    const flags = line.split(" ");
    if (flags.includes("um")) return "missing";
    if (flags.includes("uw")) return "write-protect";
  }
  return undefined;
}

/** Reads /proc/PID/maps. @throws MemoryError `gone` or `not-permitted`. */
export function readMaps(pid: number): string {
  try {
    const maps = readFileSync(`/proc/${pid}/maps`, "utf8");
    if (maps !== "") return maps;
  } catch (cause) {
    const code = codeOf(cause);
    if (code !== "ENOENT" && code !== "ESRCH") {
      throw new MemoryError(
        "not-permitted",
        `cannot read /proc/${pid}/maps (${code}); run the agent as root`,
        { cause },
      );
    }
  }
  throw new MemoryError("gone", `process ${pid} has ended`); // one that has exited has no maps left
}
