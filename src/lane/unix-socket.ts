import { chmodSync, linkSync, lstatSync, renameSync, rmSync, unlinkSync } from "node:fs";
import { connect } from "node:net";
import type { Server } from "node:net";
import { codeOf, deferred, withDeadline, type Clock } from "../base/index.js";
import { checkSocketPath } from "./address.js";
import { LaneError } from "./errors.js";

const PROBE_DEADLINE_MS = 1000;
const OWNER_ONLY = 0o600;

/**
 * Listens on a unix socket that only its owner can connect to. A socket file that nobody listens on any more is replaced.
 * @throws LaneError `bad-address` when somebody listens there, or something else is in the way.
 */
export async function listenOnPath(server: Server, path: string, clock: Clock): Promise<void> {
  checkSocketPath(path);
  try {
    await listenOwnerOnly(server, path);
  } catch (error) {
    if (codeOf(error) !== "EADDRINUSE") throw error;
    await removeStale(path, clock);
    await listenOwnerOnly(server, path);
  }
}

/** Listens on a socket of either family that listens already. */
export async function listenOnDescriptor(server: Server, descriptor: number): Promise<void> {
  const listening = deferred<void>();
  server.once("error", listening.reject);
  server.listen({ fd: descriptor }, listening.resolve);
  try {
    await listening.promise;
  } finally {
    server.off("error", listening.reject);
  }
}

/**
 * Closes a server on a path. Node.js removes the socket's file then, if it has made it; with `bequeath` the file must stay, for the process that listens on
 * it from now on, and without it must go, also when it was inherited.
 */
export function closePath(path: string, close: () => void, { bequeath }: { bequeath: boolean }): void {
  const kept = `${path}.kept`;
  if (bequeath) {
    rmSync(kept, { force: true });
    linkSync(path, kept);
  }
  close();
  if (bequeath) renameSync(kept, path);
  else rmSync(path, { force: true });
}

/** The file must not be open to others even for a moment, so it is made under a umask; the kernel makes it within `listen`. */
async function listenOwnerOnly(server: Server, path: string): Promise<void> {
  const listening = deferred<void>();
  server.once("error", listening.reject);
  const umask = process.umask(0o177);
  try {
    server.listen({ path }, listening.resolve);
  } finally {
    process.umask(umask);
  }
  try {
    await listening.promise;
    chmodSync(path, OWNER_ONLY);
  } finally {
    server.off("error", listening.reject);
  }
}

async function removeStale(path: string, clock: Clock): Promise<void> {
  if (!lstatSync(path).isSocket())
    throw new LaneError("bad-address", `${path} is there already, and is not a socket`);
  if (await answers(path, clock)) throw new LaneError("bad-address", `another process listens on ${path}`);
  unlinkSync(path);
}

/** False only when the kernel says that nobody listens. */
async function answers(path: string, clock: Clock): Promise<boolean> {
  const probed = deferred<boolean>();
  const probe = connect({ path });
  probe.once("connect", () => probed.resolve(true));
  probe.once("error", (error) => probed.resolve(codeOf(error) !== "ECONNREFUSED"));
  try {
    return await withDeadline(clock, PROBE_DEADLINE_MS, `an answer on ${path}`, probed.promise);
  } catch {
    return true;
  } finally {
    probe.destroy();
  }
}
