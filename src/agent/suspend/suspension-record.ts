import { createHash } from "node:crypto";
import { readFileSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { z } from "zod";
import { codeOf, messageOf } from "../../base/index.js";
import { AgentError } from "../errors.js";
import { syncDirectory, writeAtomically } from "../store/files.js";
import type { Paths } from "../store/paths.js";

/**
 * How far a guest is on its way out of its emulator or back into one, for a new agent, and for another host's kernel after this one. It lies beside the memory, so that who has the one has the other.
 *
 *     saving ──▶ saved ──▶ told ──▶ (no record: an emulator has the guest)
 *
 * `saving`: its emulator has it, whatever happens, and lets it run on. `saved`: all of it is in its files and on its disks, and whatever emulator there is ends. `told`, from just before the emulator that
 * loaded it is told to run: that one has it.
 */
const recordSchema = z.strictObject({
  version: z.literal(1),
  step: z.enum(["saving", "saved", "told"]),
  /** The emulator that saved it. */
  emulatorVersion: z.string(),
  /** When it stopped, milliseconds since 1970. */
  stoppedAtMs: z.number(),
  /** Of the device state; absent while there is none. */
  state: z.strictObject({ sizeBytes: z.int(), sha256: z.string().regex(/^[0-9a-f]{64}$/) }).optional(),
});
export type SuspensionRecord = z.output<typeof recordSchema>;

/** What a suspended guest consists of besides its memory and its disks. Every change is on the disk, where the memory is on one, when the call resolves. */
export class SuspensionFiles {
  readonly #recordPath: string;
  readonly #statePath: string;

  constructor(paths: Pick<Paths, "suspension" | "suspendedState">, id: string) {
    this.#recordPath = paths.suspension(id);
    this.#statePath = paths.suspendedState(id);
  }

  /** @throws AgentError `bad-record`; undefined when the guest is not suspended, nor on its way. */
  read(): SuspensionRecord | undefined {
    try {
      return recordSchema.parse(JSON.parse(readFileSync(this.#recordPath, "utf8")));
    } catch (cause) {
      if (codeOf(cause) === "ENOENT") return undefined;
      const message = `${this.#recordPath} is not a suspended guest's record of this version: ${messageOf(cause)}`;
      throw new AgentError("bad-record", message, { cause });
    }
  }

  /** @throws AgentError `no-room` or the file system's error; what was written before may hold then. */
  async write(record: SuspensionRecord): Promise<void> {
    await writeAtomically(this.#recordPath, JSON.stringify(record));
  }

  /** Writes the device state. @returns what is to be written of it. Errors as those of `write`. */
  async writeState(state: Uint8Array): Promise<NonNullable<SuspensionRecord["state"]>> {
    await writeAtomically(this.#statePath, state);
    return { sizeBytes: state.length, sha256: digestOf(state) };
  }

  /** @throws AgentError `bad-record` when it is not there, or not what was written. */
  readState({ state }: SuspensionRecord): Uint8Array {
    let bytes: Buffer;
    try {
      bytes = readFileSync(this.#statePath);
    } catch (cause) {
      const message = `the device state ${this.#statePath} of a suspended guest cannot be read (${codeOf(cause)})`;
      throw new AgentError("bad-record", message, { cause });
    }
    if (state?.sizeBytes === bytes.length && state.sha256 === digestOf(bytes)) return bytes;
    throw new AgentError(
      "bad-record",
      `the device state ${this.#statePath} of a suspended guest is not what was saved: it has been changed or damaged`,
    );
  }

  /** Bytes of the device state; 0 when there is none. */
  get stateBytes(): number {
    return statSync(this.#statePath, { throwIfNoEntry: false })?.size ?? 0;
  }

  /** There is no suspension, from here on also after a power failure. The record goes first. Throws the file system's error. */
  async remove(): Promise<void> {
    rmSync(this.#recordPath, { force: true });
    rmSync(this.#statePath, { force: true });
    try {
      await syncDirectory(dirname(this.#recordPath));
    } catch (error) {
      // The guest has ended meanwhile, and its memory is gone.
      if (codeOf(error) !== "ENOENT") throw error;
    }
  }
}

function digestOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
