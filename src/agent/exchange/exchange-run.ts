import { codeOf, messageOf, sleep } from "../../base/index.js";
import type { ExchangeRunView, ExchangeStanding } from "../../control/index.js";
import { MAX_LISTED } from "../../control/index.js";
import { fileKey, programKey, type Choice } from "../guests/emulator-catalogue.js";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";
import { exchangeTo } from "./exchange-guest.js";
import { obstacleOf } from "./exchangeable.js";
import type { RunFile, RunGuest } from "./run-record.js";

/** How often a guest is looked at again that is busy. */
const RETRY_MS = 500;

/** After so many agents that ended over one guest, it is left alone. */
const MAX_TRIES = 3;

const MAX_REASON_CHARACTERS = 500;

/** Codes of errors that say: not this guest, or not to this emulator. Nothing was done to it then. */
const REFUSALS = new Set(["bad-state", "busy", "no-such-emulator", "not-ready", "refused"]);

/**
 * Brings every guest of the host to another emulator, a few at a time. Each guest's turn is what `exchangeTo` does; here is only whose turn it is and what came of it. Guests that come
 * meanwhile have their turn too. It ends when nobody waits any more.
 *
 *     waiting ──▶ under-way ──▶ exchanged, failed
 *        │  ▲─────────┘ busy, or the agent ends
 *        └──▶ already-there, refused, ended, left
 */
export class ExchangeRun {
  readonly #services: Services;
  readonly #file: RunFile;
  /** Since when each guest that is busy is waited for, and when it is looked at again. */
  readonly #busy = new Map<string, { sinceUs: number; againUs: number }>();
  #isInterrupted = false;

  constructor(services: Services, file: RunFile) {
    this.#services = services;
    this.#file = file;
    // An agent has ended over these: what became of them, the guests tell.
    for (const guest of file.record.guests) if (guest.standing === "under-way") guest.standing = "waiting";
  }

  get isOver(): boolean {
    return this.#file.record.endedAtMs !== undefined;
  }

  view(): ExchangeRunView {
    const { emulator, parallel, waitMs, startedAtMs, endedAtMs, guests } = this.#file.record;
    return {
      ...(emulator === undefined ? {} : { emulator }),
      parallel,
      waitMs,
      phase: this.#phase(),
      startedAtMs,
      ...(endedAtMs === undefined ? {} : { endedAtMs }),
      guests: guests.map(({ tries: _, ...guest }) => guest as ExchangeRunView["guests"][number]),
    };
  }

  /** Goes on until nobody waits any more, it is stopped, or the agent ends; the next agent goes on then. */
  async work(signal: AbortSignal): Promise<void> {
    const { record } = this.#file;
    const { clock, log } = this.#services;
    await Promise.all(Array.from({ length: record.parallel }, () => this.#takeTurns(signal)));
    if (signal.aborted && !record.isStopped) {
      this.#isInterrupted = true;
      return this.#save();
    }
    for (const guest of record.guests) if (guest.standing === "waiting") guest.standing = "left";
    record.endedAtMs = clock.wallMs();
    await this.#save();
    log.info({ counts: this.#counts() }, "the exchange of all emulators is over");
  }

  /** Begins with no further guest. Resolves when that is written down. @throws AgentError `no-room` or the file system's error. */
  async stop(): Promise<void> {
    this.#file.record.isStopped = true;
    await this.#file.save();
  }

  #phase(): ExchangeRunView["phase"] {
    const { isStopped, guests } = this.#file.record;
    if (!this.isOver) return isStopped ? "stopping" : this.#isInterrupted ? "interrupted" : "running";
    return guests.some(({ standing }) => standing === "left") ? "stopped" : "done";
  }

  async #takeTurns(signal: AbortSignal): Promise<void> {
    const { record } = this.#file;
    const { clock } = this.#services;
    while (!signal.aborted && !record.isStopped) {
      this.#enterNewcomers();
      const waiting = record.guests.filter(({ standing }) => standing === "waiting");
      if (waiting.length === 0) return;
      const nowUs = clock.nowUs();
      const next = waiting.find(({ id }) => (this.#busy.get(id)?.againUs ?? 0) <= nowUs);
      if (next === undefined) await sleep(clock, RETRY_MS);
      else await this.#takeTurn(next, signal);
    }
  }

  #enterNewcomers(): void {
    const { guests } = this.#file.record;
    const known = new Set(guests.map(({ id }) => id));
    for (const { id, name, isLive } of this.#services.registry.list())
      if (isLive && !known.has(id) && guests.length < MAX_LISTED)
        guests.push({ id, name, standing: "waiting", tries: 0 });
  }

  async #takeTurn(entry: RunGuest, signal: AbortSignal): Promise<void> {
    // Nobody else takes it up meanwhile.
    entry.standing = "under-way";
    const guest = this.#services.registry.byId(entry.id);
    try {
      if (guest === undefined || !guest.isLive) this.#settle(entry, "ended");
      else await this.#bring(entry, guest);
    } catch (error) {
      if (guest?.isLive !== true) this.#settle(entry, "ended");
      else if (signal.aborted && codeOf(error) === "draining") this.#putBack(entry);
      else this.#onError(entry, guest, error);
    }
    await this.#save();
  }

  async #bring(entry: RunGuest, guest: Guest): Promise<void> {
    const choice = await this.#services.catalogue.choose(
      guest.config.architecture,
      this.#file.record.emulator,
    );
    if (isThere(guest, choice)) return this.#onThere(entry, guest);
    const obstacle = obstacleOf(this.#services, guest);
    if (obstacle !== undefined) throw obstacle.error;
    if (entry.tries >= MAX_TRIES) {
      const message = `${entry.tries} times an agent ended while this guest was brought to another emulator; ramet exchange ${guest.name} tries again`;
      return this.#settle(entry, "failed", { code: "exchange-failed", message });
    }
    entry.tries += 1;
    entry.from = guest.live.emulator.version;
    // The next agent is to know, should this one end.
    await this.#save();
    const outcome = await exchangeTo(this.#services, guest, choice);
    entry.from = outcome.from.version;
    entry.to = outcome.to.version;
    entry.pauseUs = outcome.pauseUs;
    const { message } = outcome;
    this.#settle(entry, "exchanged", message === undefined ? undefined : { code: "network", message });
  }

  #onThere(entry: RunGuest, guest: Guest): void {
    const { version } = guest.live.emulator;
    entry.to = version;
    if (entry.tries === 0) {
      entry.from = version;
      return this.#settle(entry, "already-there");
    }
    const message = "its exchange outlived the agent that began it, which is why its pause is not known";
    this.#settle(entry, "exchanged", { code: "settled", message });
  }

  #onError(entry: RunGuest, guest: Guest, error: unknown): void {
    const reason = reasonOf(error);
    const passes = reason.code === "busy" || obstacleOf(this.#services, guest)?.passes === true;
    if (passes && !this.#isWaitOver(entry)) return this.#putBack(entry, reason);
    this.#settle(entry, REFUSALS.has(reason.code) ? "refused" : "failed", reason);
  }

  /** Whether a guest that is busy has been waited for long enough; looks at it again later otherwise. */
  #isWaitOver({ id }: RunGuest): boolean {
    const { record } = this.#file;
    const nowUs = this.#services.clock.nowUs();
    const sinceUs = this.#busy.get(id)?.sinceUs ?? nowUs;
    if (nowUs - sinceUs >= record.waitMs * 1000) return true;
    this.#busy.set(id, { sinceUs, againUs: nowUs + RETRY_MS * 1000 });
    return false;
  }

  /** It was not begun with, or given up before anything was done. */
  #putBack(entry: RunGuest, reason?: RunGuest["reason"]): void {
    entry.standing = "waiting";
    entry.tries = Math.max(0, entry.tries - 1);
    if (reason !== undefined) entry.reason = reason;
  }

  #settle(entry: RunGuest, standing: ExchangeStanding, reason?: RunGuest["reason"]): void {
    entry.standing = standing;
    if (reason === undefined) delete entry.reason;
    else entry.reason = reason;
    this.#busy.delete(entry.id);
  }

  #counts(): Partial<Record<ExchangeStanding, number>> {
    const counts: Partial<Record<ExchangeStanding, number>> = {};
    for (const { standing } of this.#file.record.guests) counts[standing] = (counts[standing] ?? 0) + 1;
    return counts;
  }

  /** What cannot be written down is found out again by the next agent, from the guests. */
  async #save(): Promise<void> {
    try {
      await this.#file.save();
    } catch (error) {
      this.#services.log.warn(
        { problem: messageOf(error) },
        "how far the exchange of all emulators is could not be written down",
      );
    }
  }
}

/** Whether the guest runs in this emulator, and not in a file that was replaced since. */
function isThere(guest: Guest, { binary }: Choice): boolean {
  if (!guest.hasEmulator) return false;
  const key = fileKey(binary);
  return key !== undefined && programKey(guest.live.emulator.pid) === key;
}

function reasonOf(error: unknown): { code: string; message: string } {
  return { code: codeOf(error).slice(0, 64), message: messageOf(error).slice(0, MAX_REASON_CHARACTERS) };
}
