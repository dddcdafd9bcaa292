/**
 * The emulator's control connection, QMP (QEMU, docs/interop/qmp-spec): one JSON object a line.
 *
 *   emulator: greeting ──▶ client: qmp_capabilities ──▶ emulator: return
 *   client: {execute, arguments, id} ──▶ emulator: {return | error, id}     events {event, timestamp} at any time
 *
 * Strict: a line that is too long, not JSON, of no known shape, or that answers what was never asked ends the connection with
 * the code `protocol`; then nothing it says can be trusted to belong to the right command.
 */
import type { Duplex } from "node:stream";
import { z } from "zod";
import { CodedError, DeadlineError, messageOf, withDeadline, type Clock } from "../base/index.js";
import { GuestError } from "./errors.js";
import { COMMAND_DEADLINE_MS, MAX_QMP_LINE_BYTES } from "./limits.js";
import { connectToEmulator } from "./own-socket.js";

/** Something the emulator told unasked. */
export interface QmpEvent {
  name: string;
  data: unknown;
  /** The emulator's wall clock in microseconds since 1970. */
  atUs: number;
}

/** The emulator's version, from its greeting. */
export interface QmpVersion {
  major: number;
  minor: number;
  micro: number;
}

interface Waiting {
  command: string;
  resolve(value: unknown): void;
  reject(error: GuestError): void;
}

const number = z.int().min(0).max(999_999);
const greetingSchema = z.object({
  QMP: z.object({
    version: z.object({ qemu: z.object({ major: number, minor: number, micro: number }) }),
    capabilities: z.array(z.unknown()).optional(),
  }),
});
const eventSchema = z.object({
  event: z.string(),
  data: z.unknown().optional(),
  // Both are -1 when the emulator could not read its clock.
  timestamp: z.object({ seconds: z.int(), microseconds: z.int() }),
});
const returnSchema = z
  .object({ id: z.int(), return: z.unknown() })
  .refine((reply) => reply.return !== undefined);
const errorSchema = z.object({ id: z.int(), error: z.object({ class: z.string(), desc: z.string() }) });

const NOTHING = Buffer.alloc(0);

export class QmpClient {
  readonly #socket: Duplex;
  readonly #clock: Clock;
  readonly #onEvent: (event: QmpEvent) => void;
  readonly #onEnd: (reason: GuestError) => void;
  readonly #waiting = new Map<number, Waiting>();
  /** Commands given up on, whose answers may still come. */
  readonly #expired = new Set<number>();
  /** The start of a line whose end has not come: the first `#heldBytes` of a buffer that grows. */
  #held: Buffer = NOTHING;
  #heldBytes = 0;
  #nextId = 1;
  #offersOob = false;
  #version: QmpVersion | undefined;
  #greeted: (version: QmpVersion) => void = () => {};
  #refused: (error: GuestError) => void = () => {};
  #end: GuestError | undefined;

  private constructor(socket: Duplex, options: QmpOptions) {
    this.#socket = socket;
    this.#clock = options.clock;
    this.#onEvent = options.onEvent;
    this.#onEnd = options.onEnd;
  }

  /**
   * Connects, reads the greeting and negotiates.
   * @throws GuestError `gone` when nobody listens or the connection ends, `protocol`, `timeout`.
   */
  static async connect(options: QmpOptions & { path: string; deadlineMs: number }): Promise<QmpClient> {
    return QmpClient.over(connectToEmulator(options.path), options);
  }

  /** As `connect`, over a connection that is there already, and the client's from here on. */
  static async over(socket: Duplex, options: QmpOptions & { deadlineMs: number }): Promise<QmpClient> {
    const client = new QmpClient(socket, options);
    const greeting = new Promise<void>((resolve, reject) => {
      client.#greeted = (version) => {
        client.#version = version;
        resolve();
      };
      client.#refused = reject;
    });
    client.#listen();
    try {
      await withDeadline(options.clock, options.deadlineMs, "the emulator's greeting", greeting);
      // Its thread then reads commands ahead while the main loop carries out those before them (QEMU, monitor/qmp.c): 0.4 ms less of a pause with three of them, 0.6 ms with four.
      const enabled = client.#offersOob ? { enable: ["oob"] } : {};
      await client.execute("qmp_capabilities", enabled, options);
      return client;
    } catch (error) {
      client.#finish(asGuestError(error), { tell: false });
      throw asGuestError(error);
    }
  }

  /** The emulator's version. */
  get version(): QmpVersion {
    return this.#version ?? { major: 0, minor: 0, micro: 0 };
  }

  /** Whether commands can be sent. */
  get open(): boolean {
    return this.#end === undefined;
  }

  /**
   * Sends a command and waits for its answer. Commands are carried out in the order in which they were sent. When the deadline
   * passes, the command stays with the emulator and may still be carried out; its answer is then dropped.
   * @throws GuestError `command-failed` with the emulator's reason, `timeout`, `gone`, `protocol`.
   */
  async execute(command: string, args: object = {}, options: { deadlineMs?: number } = {}): Promise<unknown> {
    if (this.#end !== undefined) throw this.#end;
    const id = this.#nextId++;
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#waiting.set(id, { command, resolve, reject });
    });
    // The emulator reads byte by byte, a turn of a loop each, some 5 µs: nothing is said that need not be.
    const said = Object.keys(args).length === 0 ? {} : { arguments: args };
    this.#socket.write(`${JSON.stringify({ execute: command, ...said, id })}\n`);
    try {
      const deadlineMs = options.deadlineMs ?? COMMAND_DEADLINE_MS;
      return await withDeadline(this.#clock, deadlineMs, `the emulator's answer to ${command}`, answer);
    } catch (error) {
      if (this.#waiting.delete(id)) this.#expired.add(id);
      throw asGuestError(error);
    }
  }

  /** A command of the human monitor, for what QMP lacks. Its answer is text. */
  async executeHuman(line: string, options: { deadlineMs?: number } = {}): Promise<string> {
    const answer = await this.execute("human-monitor-command", { "command-line": line }, options);
    if (typeof answer !== "string")
      throw new GuestError("protocol", `the emulator's answer to "${line}" is not text`);
    return answer;
  }

  /** Ends the connection; commands still waiting fail with `gone`. May be called twice. `onEnd` is not called for it. */
  close(): void {
    this.#finish(new GuestError("gone", "the control connection was closed"), { tell: false });
  }

  #listen(): void {
    this.#socket.on("data", (chunk) => this.#receive(chunk));
    this.#socket.on("error", (error) => {
      this.#finish(
        new GuestError("gone", `the control connection failed: ${error.message}`, { cause: error }),
        { tell: true },
      );
    });
    this.#socket.on("close", () => {
      this.#finish(new GuestError("gone", "the emulator ended the control connection"), { tell: true });
    });
  }

  #receive(chunk: Buffer): void {
    let rest = chunk;
    while (this.#end === undefined) {
      const newline = rest.indexOf(0x0a);
      const part = newline === -1 ? rest : rest.subarray(0, newline);
      if (this.#heldBytes + part.length > MAX_QMP_LINE_BYTES) {
        return this.#violation(`a line of more than ${MAX_QMP_LINE_BYTES} bytes`);
      }
      if (newline === -1) return this.#hold(part);
      this.#readLine(this.#lineWith(part).toString("utf8").trim());
      rest = rest.subarray(newline + 1);
    }
  }

  /** One buffer, because an emulator may send a line in pieces of one byte, and a piece kept costs a hundred. */
  #hold(part: Buffer): void {
    const neededBytes = this.#heldBytes + part.length;
    if (neededBytes > this.#held.length) {
      const grown = Buffer.allocUnsafe(Math.max(neededBytes, 2 * this.#held.length));
      this.#held.copy(grown, 0, 0, this.#heldBytes);
      this.#held = grown;
    }
    part.copy(this.#held, this.#heldBytes);
    this.#heldBytes = neededBytes;
  }

  /** What is held and the end of its line; nothing is held from here on. */
  #lineWith(end: Buffer): Buffer {
    if (this.#heldBytes === 0) return end;
    this.#hold(end);
    const line = this.#held.subarray(0, this.#heldBytes);
    this.#held = NOTHING;
    this.#heldBytes = 0;
    return line;
  }

  #readLine(line: string): void {
    if (line === "") return;
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch {
      return this.#violation("a line that is not JSON");
    }
    if (typeof message !== "object" || message === null)
      return this.#violation("a line that is not an object");
    if (this.#version === undefined) return this.#readGreeting(message);
    if ("event" in message) return this.#readEvent(message);
    this.#readAnswer(message);
  }

  #readGreeting(message: object): void {
    const greeting = greetingSchema.safeParse(message);
    if (!greeting.success) return this.#violation("something else than a greeting");
    this.#offersOob = greeting.data.QMP.capabilities?.includes("oob") === true;
    this.#greeted(greeting.data.QMP.version.qemu);
  }

  #readEvent(message: object): void {
    const parsed = eventSchema.safeParse(message);
    if (!parsed.success) return this.#violation("a malformed event");
    const { event, data, timestamp } = parsed.data;
    this.#onEvent({ name: event, data, atUs: timestamp.seconds * 1_000_000 + timestamp.microseconds });
  }

  #readAnswer(message: object): void {
    const failed = "error" in message;
    const parsed = failed ? errorSchema.safeParse(message) : returnSchema.safeParse(message);
    if (!parsed.success || (failed && "return" in message)) return this.#violation("a malformed answer");
    const { id } = parsed.data;
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) {
      if (!this.#expired.delete(id)) this.#violation("an answer to no command");
      return;
    }
    this.#waiting.delete(id);
    if ("error" in parsed.data) {
      const reason = parsed.data.error.desc;
      waiting.reject(new GuestError("command-failed", `the emulator refused ${waiting.command}: ${reason}`));
    } else {
      waiting.resolve(parsed.data.return);
    }
  }

  #violation(what: string): void {
    this.#finish(new GuestError("protocol", `the emulator sent ${what} on its control connection`), {
      tell: true,
    });
  }

  #finish(reason: GuestError, options: { tell: boolean }): void {
    if (this.#end !== undefined) return;
    this.#end = reason;
    this.#held = NOTHING;
    this.#heldBytes = 0;
    this.#socket.destroy();
    this.#refused(reason);
    for (const waiting of this.#waiting.values()) waiting.reject(reason);
    this.#waiting.clear();
    this.#expired.clear();
    // Before the greeting, whoever connects is told by the rejection.
    if (options.tell && this.#version !== undefined) this.#onEnd(reason);
  }
}

/** What a QMP client needs besides the socket's path. */
export interface QmpOptions {
  clock: Clock;
  onEvent(event: QmpEvent): void;
  /** Called once when the connection ends without `close`. */
  onEnd(reason: GuestError): void;
}

function asGuestError(error: unknown): GuestError {
  if (error instanceof GuestError) return error;
  if (error instanceof DeadlineError) return new GuestError("timeout", error.message, { cause: error });
  if (error instanceof CodedError) return new GuestError("gone", error.message, { cause: error });
  return new GuestError("gone", messageOf(error), { cause: error });
}
