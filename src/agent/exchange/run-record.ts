import { readFileSync } from "node:fs";
import { z } from "zod";
import { codeOf, messageOf } from "../../base/index.js";
import { EXCHANGE_STANDINGS } from "../../control/index.js";
import { AgentError } from "../errors.js";
import { writeAtomically } from "../store/files.js";

const text = z.string().max(1024);

const guestSchema = z.strictObject({
  id: z.uuid(),
  name: z.string(),
  standing: z.enum(EXCHANGE_STANDINGS),
  from: text.optional(),
  to: text.optional(),
  pauseUs: z.number().optional(),
  reason: z.strictObject({ code: text, message: text }).optional(),
  /** How often an agent has begun with it. */
  tries: z.int().min(0),
});

/**
 * An exchange of every guest of the host, for a new agent, which goes on with it unless it has ended. Written before and after each guest's turn; what an agent that was killed did not
 * come to write is found out from the guests.
 */
const recordSchema = z.strictObject({
  version: z.literal(1),
  emulator: z.string().optional(),
  parallel: z.int().min(1),
  waitMs: z.int().min(0),
  /** No further guest is begun with. */
  isStopped: z.boolean(),
  startedAtMs: z.number(),
  endedAtMs: z.number().optional(),
  guests: z.array(guestSchema),
});
export type RunRecord = z.output<typeof recordSchema>;
export type RunGuest = z.output<typeof guestSchema>;

/** The record in its file, which is replaced in one step each time. */
export class RunFile {
  readonly record: RunRecord;
  readonly #path: string;
  #saving: Promise<void> = Promise.resolve();
  #waiting: Promise<void> | undefined;

  constructor(path: string, record: RunRecord) {
    this.#path = path;
    this.record = record;
  }

  /** Resolves when what the record says now is on disk. Calls that come while one is written share the next. @throws AgentError `no-room` or the file system's error. */
  save(): Promise<void> {
    this.#waiting ??= this.#saving
      .catch(() => {})
      .then(() => {
        this.#waiting = undefined;
        this.#saving = writeAtomically(this.#path, `${JSON.stringify(this.record, undefined, 1)}\n`);
        return this.#saving;
      });
    return this.#waiting;
  }
}

/** The latest exchange of every guest; undefined when there was none. @throws AgentError `bad-record`. */
export function readRun(path: string): RunFile | undefined {
  try {
    return new RunFile(path, recordSchema.parse(JSON.parse(readFileSync(path, "utf8"))));
  } catch (cause) {
    if (codeOf(cause) === "ENOENT") return undefined;
    const message = `${path} is not the record of an exchange of this version: ${messageOf(cause)}`;
    throw new AgentError("bad-record", message, { cause });
  }
}
