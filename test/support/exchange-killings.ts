import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import type { Host } from "./hosts.js";
import { signal, whileItStandsStill } from "./stand-still.js";

const SPIN_MS = 30_000;
const MAX_TRIES = 10;

export type Victim = "agent" | "old" | "new";
/** What can be seen of an exchange from outside, in turn. */
export type Sight = "preparing" | "started" | "saving" | "told";

/** Who is killed, how long after what was seen. */
export interface Killing {
  victims: readonly Victim[];
  at: Sight;
  ms: number;
  /** What must not be seen yet, besides that the guest is the new emulator's where that is killed before. */
  before?: Sight;
  /** Who stands still from then on. */
  hangs?: readonly Victim[];
}

/** An exchange as seen from outside. */
interface Seen {
  step: string;
  sights: Record<Sight, boolean>;
  old: number | undefined;
  next: number | undefined;
}

/** Begins exchanges of a guest, there and back, until somebody was killed in one as wanted. @returns what its record said then, and what came of it. */
export async function killInExchange(
  host: Host,
  { name, exchange, ...killing }: Killing & { name: string; exchange(emulator?: string): Promise<unknown> },
): Promise<{ step: string; done: Promise<string> }> {
  // On a busy machine one may be over before it was looked at, and on a quiet one too far when somebody is to be killed.
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    const { id = "", emulatorVersion = "" } = (await host.guests()).get(name) ?? {};
    const over = { isOver: false };
    const killed = killAt(host, { ...killing, id, over });
    const done = exchange(emulatorVersion.startsWith("10") ? undefined : "10.0")
      .then(
        () => "done",
        (error: { code: string }) => error.code,
      )
      .finally(() => (over.isOver = true));
    const step = await killed;
    if (step !== "not seen") return { step, done };
    await done;
  }
  throw new Error(`no exchange was seen to be ${killing.at}`);
}

async function killAt(
  host: Host,
  { id, over, victims, at, ms, hangs = [], ...killing }: Killing & { id: string; over: { isOver: boolean } },
): Promise<string> {
  // The new one is the guest's own by then, which would end with it.
  const before = killing.before ?? (at !== "told" && victims.includes("new") ? "told" : undefined);
  const until = performance.now() + SPIN_MS;
  for (;;) {
    const seen = look(host, id);
    if (seen !== undefined && (seen.sights[at] || seen.sights.told)) {
      const from = performance.now();
      while (performance.now() < from + ms);
      return whileItStandsStill(host.pid, () => {
        const now = look(host, id);
        if (before !== undefined && now?.sights[before] !== false) return "not seen";
        const pids = { agent: host.pid, old: seen.old, new: seen.next };
        for (const victim of hangs) signal(pids[victim], "SIGSTOP");
        for (const victim of victims) signal(pids[victim], "SIGKILL");
        return now?.step ?? "over";
      });
    }
    if (over.isOver) return "not seen";
    assert.ok(performance.now() < until, "an exchange is seen");
    await turn();
  }
}

/** How far the exchange of a guest is; undefined when none is under way. */
function look(host: Host, id: string): Seen | undefined {
  const memory = join(host.memoryDirectory, id);
  const record = readIfThere<{ step: string; to: string }>(join(memory, "exchange.json"));
  if (record === undefined) return undefined;
  const pidOf = (seat: string) =>
    readIfThere<number>(join(host.stateDirectory, "guests", id, seat, "emulator.pid"));
  const next = pidOf(record.to);
  const isSaving = next !== undefined && readdirSync(memory).some((name) => name.includes("device-state"));
  return {
    step: record.step,
    sights: {
      preparing: true,
      started: next !== undefined,
      saving: isSaving,
      told: record.step === "told",
    },
    old: pidOf(record.to === "run" ? "alt" : "run"),
    next,
  };
}

function readIfThere<T>(path: string): T | undefined {
  if (!existsSync(path)) return undefined;
  try {
    return JSON.parse(readFileSync(path, "utf8")) as T;
  } catch {
    return undefined;
  }
}
