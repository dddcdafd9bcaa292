import { assert, messageOf, type Clock, type Log, type Timer } from "../../base/index.js";
import type { Params, RpcServerSession } from "../../control/index.js";
import { AgentError } from "../errors.js";
import type { BootFileHold, BootStore, BootUpload } from "./boot-store.js";

/** A file that has come, or is known to be here, is kept for this long for the guest it came for. */
const KEEP_MS = 60_000;

interface Expected {
  sizeBytes: number;
  upload: BootUpload | undefined;
}

/** Boot files on their way from peers: only those a connection was told to put, in order, one piece at a time. */
export class BootUploads {
  readonly #boot: BootStore;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #expected = new Map<RpcServerSession, Map<string, Expected>>();
  readonly #kept = new Map<BootFileHold, Timer>();

  constructor(options: { boot: BootStore; clock: Clock; log: Log }) {
    this.#boot = options.boot;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Lets a connection put this file. */
  expect(session: RpcServerSession, file: { sha256: string; sizeBytes: number }): void {
    let files = this.#expected.get(session);
    if (files === undefined) {
      files = new Map();
      this.#expected.set(session, files);
      session.onEnd(() => this.#forget(session));
    }
    if (!files.has(file.sha256)) files.set(file.sha256, { sizeBytes: file.sizeBytes, upload: undefined });
  }

  /** Whether a file is here; if so it stays here for a while. */
  async keep(sha256: string): Promise<boolean> {
    const hold = this.#boot.hold(sha256);
    const here = await this.#boot.has(sha256);
    if (here) this.#keepFor(hold);
    else hold.letGo();
    return here;
  }

  /** Takes a piece. @throws AgentError `bad-boot-file`, after which the file must be put from its start. */
  async put(params: Params<"peer.putFile">, session: RpcServerSession): Promise<{ nextOffset: number }> {
    const files = this.#expected.get(session);
    const expected = files?.get(params.sha256);
    if (files === undefined || expected === undefined) {
      throw new AgentError(
        "bad-boot-file",
        `boot file ${params.sha256} was not asked for on this connection`,
      );
    }
    if (params.offset === 0) {
      await expected.upload?.abandon();
      expected.upload = await this.#boot.receive({ sizeBytes: expected.sizeBytes, digest: params.sha256 });
    }
    const { upload } = expected;
    if (upload === undefined)
      throw new AgentError("bad-boot-file", `boot file ${params.sha256} must be put from its start`);
    try {
      await upload.write(params.offset, params.bytes);
      if (params.last) {
        this.#keepFor(await upload.finish());
        files.delete(params.sha256);
        await upload.abandon();
      }
    } catch (error) {
      expected.upload = undefined;
      await upload.abandon();
      throw error;
    }
    return { nextOffset: upload.receivedBytes };
  }

  close(): void {
    for (const [hold, timer] of this.#kept) {
      timer.cancel();
      hold.letGo();
    }
    this.#kept.clear();
  }

  #keepFor(hold: BootFileHold): void {
    assert(!this.#kept.has(hold), "a hold is kept once");
    const timer = this.#clock.after(KEEP_MS, () => {
      this.#kept.delete(hold);
      hold.letGo();
    });
    this.#kept.set(hold, timer);
  }

  #forget(session: RpcServerSession): void {
    for (const { upload } of this.#expected.get(session)?.values() ?? []) {
      upload
        ?.abandon()
        .catch((error: unknown) =>
          this.#log.warn({ problem: messageOf(error) }, "an unfinished boot file remains"),
        );
    }
    this.#expected.delete(session);
  }
}
