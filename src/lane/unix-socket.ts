import { chmodSync, lstatSync, renameSync, rmSync } from "node:fs";
import { connect } from "node:net";
import type { Server } from "node:net";
import { dirname, join } from "node:path";
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
  await requireFree(path, clock);
  // Node.js removes the file it has made when the server closes. Under another name it is ours, to leave to a process that goes on listening.
  const made = join(dirname(path), `.${process.pid.toString(36)}`);
  checkSocketPath(made);
  rmSync(made, { force: true });
  await listenOwnerOnly(server, made);
  renameSync(made, path);
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

/** A file that nobody listens on any more is in nobody's way. */
async function requireFree(path: string, clock: Clock): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw new LaneError("bad-address", `${path} is there already, and is not a socket`);
  if (await answers(path, clock)) throw new LaneError("bad-address", `another process listens on ${path}`);
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
