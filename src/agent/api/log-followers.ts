import { closeSync, openSync, readSync, statSync } from "node:fs";
import type { Clock } from "../../base/index.js";
import {
  MAX_LOG_LINE_CHARACTERS,
  MAX_LOG_LINES,
  type Params,
  type RpcServerSession,
} from "../../control/index.js";
import { tailOf } from "../../guest/index.js";
import type { Guest } from "../guests/guest.js";
import type { Paths } from "../store/paths.js";

/** How often a followed log is looked at. */
const POLL_INTERVAL_MS = 300;

/** Most bytes read of a log at a time; what a guest writes faster than that is skipped. */
const MAX_READ_BYTES = 512 * 1024;

/** Guests' logs: their last lines, and those that follow. */
export class LogFollowers {
  readonly #paths: Paths;
  readonly #clock: Clock;

  constructor(options: { paths: Paths; clock: Clock }) {
    this.#paths = options.paths;
    this.#clock = options.clock;
  }

  /** The last lines of a log; with `follow`, later ones come as events until the connection or the guest is gone. */
  async read(guest: Guest, params: Params<"guest.logs">, session: RpcServerSession): Promise<string[]> {
    const path =
      params.source === "console" ? this.#paths.consoleLog(guest.id) : this.#paths.emulatorLog(guest.id);
    const lines = params.lines === 0 ? [] : this.#lastLines(path, params.lines);
    if (params.follow) this.#follow(guest, path, session);
    return lines;
  }

  #lastLines(path: string, count: number): string[] {
    const current = tailOf(path, MAX_READ_BYTES);
    const text =
      current.split("\n").length >= count ? current : `${tailOf(`${path}.1`, MAX_READ_BYTES)}\n${current}`;
    return linesOf(text.trim()).slice(-count);
  }

  #follow(guest: Guest, path: string, session: RpcServerSession): void {
    let offset = sizeOf(path) ?? 0;
    let rest = "";
    let over = false;
    session.onEnd(() => (over = true));
    const look = (): void => {
      if (over) return;
      const size = sizeOf(path);
      // It comes when the guest starts; a guest that is removed keeps its last state, and has no emulator.
      if (size === undefined && !guest.hasEmulator && guest.state !== "starting") return;
      // A log that has become shorter was cut, and starts anew.
      if ((size ?? 0) < offset) offset = 0;
      const text = readFrom(path, offset, size ?? 0);
      offset = size ?? 0;
      const parts = (rest + text).split("\n");
      rest = (parts.pop() ?? "").slice(-MAX_LOG_LINE_CHARACTERS);
      const lines = linesOf(parts.join("\n")).slice(-MAX_LOG_LINES);
      if (parts.length > 0) session.sendEvent("log", { guest: guest.name, lines });
      this.#clock.after(POLL_INTERVAL_MS, look);
    };
    this.#clock.after(POLL_INTERVAL_MS, look);
  }
}

function linesOf(text: string): string[] {
  if (text === "") return [];
  return text.split("\n").map((line) => line.replace(/\r$/, "").slice(0, MAX_LOG_LINE_CHARACTERS));
}

function sizeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.size;
}

function readFrom(path: string, offset: number, size: number): string {
  const bytes = Buffer.alloc(Math.min(size - offset, MAX_READ_BYTES));
  if (bytes.length === 0) return "";
  let file: number;
  try {
    file = openSync(path, "r");
  } catch {
    // Removed since it was looked at.
    return "";
  }
  try {
    return bytes.toString("utf8", 0, readSync(file, bytes, 0, bytes.length, size - bytes.length));
  } finally {
    closeSync(file);
  }
}
