import { closeSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { codeOf } from "../base/index.js";
import { takeDescriptor } from "./descriptors.js";
import { MemoryError } from "./errors.js";
import { loadNative } from "./native.js";

/** A TCP port of this host. */
export interface LocalPort {
  hostPort: number;
}

/** States of /proc/net/tcp in which a connection has an other side (include/net/tcp_states.h): established, and closed by the other side. */
const CONNECTED = new Set(["01", "08"]);

/** Fields of a line of /proc/net/tcp. */
const LOCAL_ADDRESS = 1;
const STATE = 3;
const INODE = 9;

/**
 * Ends the TCP connections that process `pid` has accepted at some ports of this host, as if both sides had closed them; who listens there is left alone. Here because the one addon is.
 * @returns how many there were; none of a process that has ended.
 * @throws MemoryError `not-permitted` or `failed`.
 */
export function cutConnections(pid: number, ports: readonly LocalPort[]): number {
  if (ports.length === 0) return 0;
  try {
    const inodes = connectionsAt(pid, new Set(ports.map(({ hostPort }) => hostPort)));
    const sockets = inodes.size === 0 ? [] : socketsOf(pid, inodes);
    for (const fd of sockets) cut(pid, fd);
    return sockets.length;
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT" || code === "ESRCH" || code === "gone") return 0;
    if (error instanceof MemoryError) throw error;
    throw new MemoryError("failed", `the connections of process ${pid} cannot be read (${code})`, {
      cause: error,
    });
  }
}

function cut(pid: number, number: number): void {
  const fd = takeDescriptor(pid, number);
  // One that has ended meanwhile is not connected any more, which is what is wanted.
  loadNative().shutDown(fd);
  closeSync(fd);
}

/** Inodes of the connections at these ports of all processes that share this one's network. */
function connectionsAt(pid: number, ports: ReadonlySet<number>): Set<string> {
  const inodes = new Set<string>();
  for (const table of ["tcp", "tcp6"]) {
    for (const line of readFileSync(`/proc/${pid}/net/${table}`, "utf8").split("\n").slice(1)) {
      const fields = line.trim().split(/\s+/);
      const port = Number.parseInt(fields[LOCAL_ADDRESS]?.split(":")[1] ?? "", 16);
      if (CONNECTED.has(fields[STATE] ?? "") && ports.has(port)) inodes.add(fields[INODE] ?? "");
    }
  }
  return inodes;
}

function socketsOf(pid: number, inodes: ReadonlySet<string>): number[] {
  return readdirSync(`/proc/${pid}/fd`)
    .map(Number)
    .filter((fd) => inodes.has(inodeOf(pid, fd) ?? ""));
}

function inodeOf(pid: number, fd: number): string | undefined {
  try {
    return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1];
  } catch {
    // Closed since the directory was read.
    return undefined;
  }
}
