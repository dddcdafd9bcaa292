import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { z } from "zod";
import { codeOf, messageOf } from "../../base/index.js";
import { otherSeat, SEATS, type Seat } from "../../guest/index.js";
import { AgentError } from "../errors.js";
import { asRoomError, UNFINISHED_SUFFIX } from "../store/files.js";

/**
 * How far the exchange of a guest's emulator is, for a new agent. `preparing` until the device state is loaded: whatever happens, the emulator the guest had goes on, and
 * the other one is ended. `told` from just before the new one is told to run: that one is the guest's, and the former is ended.
 */
const recordSchema = z.strictObject({
  version: z.literal(1),
  step: z.enum(["preparing", "told"]),
  /** The seat of the emulator that is to take over. */
  to: z.enum(SEATS),
});
export type ExchangeRecord = z.output<typeof recordSchema>;

/**
 * The record of an exchange in a file beside the guest's memory, on tmpfs: it is to outlive the agent, not the machine, so nothing is synced, and it can be written in
 * the pause. Every change is there when the call returns.
 */
export class ExchangeFile {
  readonly #path: string;
  readonly #to: Seat;

  /** @throws AgentError `no-room` or the file system's error. */
  constructor(path: string, to: Seat) {
    this.#path = path;
    this.#to = to;
    this.write("preparing");
  }

  /** @throws AgentError `no-room` or the file system's error; what was written before holds then. */
  write(step: ExchangeRecord["step"]): void {
    const unfinished = `${this.#path}${UNFINISHED_SUFFIX}`;
    const record: ExchangeRecord = { version: 1, step, to: this.#to };
    try {
      writeFileSync(unfinished, JSON.stringify(record), { mode: 0o600 });
      renameSync(unfinished, this.#path);
    } catch (error) {
      rmSync(unfinished, { force: true });
      throw asRoomError(error, this.#path);
    }
  }

  /** The new emulator has ended without having run. Where that cannot be written, there is no record of it. */
  takeBack(): void {
    try {
      this.write("preparing");
    } catch {
      this.remove();
    }
  }

  remove(): void {
    rmSync(this.#path, { force: true });
  }
}

/** What an earlier agent left of an exchange; undefined when there was none. @throws AgentError `bad-record`. */
export function readExchange(path: string): ExchangeRecord | undefined {
  try {
    return recordSchema.parse(JSON.parse(readFileSync(path, "utf8")));
  } catch (cause) {
    if (codeOf(cause) === "ENOENT") return undefined;
    const message = `${path} is not an exchange's record of this version: ${messageOf(cause)}`;
    throw new AgentError("bad-record", message, { cause });
  }
}

/** The seats of a guest that an earlier agent left: of the emulator that is its own, and of one that is to be ended. */
export function seatsOf(
  record: { seat?: Seat | undefined },
  left: ExchangeRecord | undefined,
): { own: Seat; ended?: Seat } {
  const own = left?.step === "told" ? left.to : (record.seat ?? "run");
  return left === undefined ? { own } : { own, ended: otherSeat(own) };
}
