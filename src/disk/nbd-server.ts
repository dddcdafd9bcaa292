import { chmodSync, chownSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { codeOf, deferred, messageOf, type Clock, type Log } from "../base/index.js";
import type { BlockSource } from "./block-source.js";
import { DiskError } from "./errors.js";
import { MAX_CLIENTS } from "./nbd-limits.js";
import { NbdSession } from "./nbd-session.js";

const OWNER_ONLY = 0o600;
const ANYBODY = 0o666;

export interface NbdServerOptions {
  /** The socket's path, in a directory that nobody else makes files in. A socket that an agent before this one has left there is replaced. */
  path: string;
  /** What is read there; it stays its owner's. */
  source: BlockSource;
  /** What clients must call it; the empty name is what they ask for when they say nothing. */
  exportName?: string;
  /** Who may connect besides root: the emulator's user. */
  owner?: { uid: number; gid: number } | undefined;
  /** Whoever knows the path may connect: several emulators read there. */
  open?: boolean;
  clock: Clock;
  log: Log;
}

/**
 * Gives one disk to an emulator over NBD: on a unix socket, read only, and as its content comes, so that a read which has to wait for another host does not
 * hold up those after it.
 */
export class NbdServer {
  readonly path: string;
  readonly #options: NbdServerOptions;
  readonly #server: Server;
  readonly #sessions = new Set<NbdSession>();

  private constructor(options: NbdServerOptions) {
    this.#options = options;
    this.path = options.path;
    this.#server = createServer((socket) => this.#onConnection(socket));
    this.#server.maxConnections = MAX_CLIENTS;
  }

  /** Listens. @throws DiskError `bad-socket` when it cannot. */
  static async open(options: NbdServerOptions): Promise<NbdServer> {
    const server = new NbdServer(options);
    try {
      await server.#listen();
    } catch (cause) {
      server.#server.close();
      if (codeOf(cause) === "internal") throw cause;
      throw new DiskError("bad-socket", `no disk can be given on ${options.path}: ${messageOf(cause)}`, {
        cause,
      });
    }
    return server;
  }

  /** Ends every client's connection and removes the socket. */
  async close(): Promise<void> {
    const closed = deferred<void>();
    this.#server.close(() => closed.resolve());
    for (const session of this.#sessions) session.end();
    await closed.promise;
  }

  async #listen(): Promise<void> {
    const { path, owner, open = false } = this.#options;
    rmSync(path, { force: true });
    const listening = deferred<void>();
    this.#server.once("error", listening.reject);
    // It must not be open to others even for a moment; the kernel makes the file within `listen`.
    const umask = process.umask(0o177);
    try {
      this.#server.listen({ path }, listening.resolve);
    } finally {
      process.umask(umask);
    }
    await listening.promise;
    this.#server.off("error", listening.reject);
    chmodSync(path, open ? ANYBODY : OWNER_ONLY);
    if (owner !== undefined) chownSync(path, owner.uid, owner.gid);
  }

  #onConnection(socket: Socket): void {
    const { source, exportName = "", clock, log } = this.#options;
    const onEnd = (): void => void this.#sessions.delete(session);
    const session = new NbdSession({ socket, source, exportName, clock, log, onEnd });
    this.#sessions.add(session);
  }
}
