import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { ask } from "./sample-guest.js";
import { eventually, emulatorsBelow, type Host } from "./hosts.js";
import { signal, whileItStandsStill } from "./stand-still.js";

const STAMPED_MIB = 16;
const PAGES_PER_MIB = 256;
const SPIN_MS = 60_000;

/** What the guest is asked to do while it is suspended and resumed, and asserts of itself: stamped pages, and rows on its disk. */
export class SuspendedLoad {
  readonly #host: Host;
  readonly #port: number;
  #bootId = "";
  #counter = 0;

  constructor(host: Host, port: number) {
    this.#host = host;
    this.#port = port;
  }

  async start(): Promise<void> {
    await ask(this.#host, this.#port, `/stamp/start?mib=${STAMPED_MIB}&fill=page&rate=40&check=20`);
    await ask(this.#host, this.#port, "/disk/start?pause=1000");
    const { boot_id, counter } = await ask(this.#host, this.#port);
    this.#bootId = boot_id;
    this.#counter = counter;
  }

  /** It runs, in one emulator, and is the machine it was: its memory, its disk, its count. */
  async requireWhole(): Promise<void> {
    const [host, port] = [this.#host, this.#port];
    const { pid } = (await host.guests()).get("web") ?? {};
    assert.deepEqual(emulatorsBelow(host.stateDirectory), [pid], "one emulator has it");
    this.#counter += 1;
    const { boot_id, counter } = await ask(host, port);
    assert.deepEqual({ boot_id, counter }, { boot_id: this.#bootId, counter: this.#counter });
    const { wrong_pages } = await ask<{ wrong_pages: number }>(host, port, "/stamp/status");
    assert.equal(wrong_pages, 0);
    await ask(host, port, "/stamp/pace?rate=1");
    const { checked, bad } = await ask<{ checked: number; bad: number }>(
      host,
      port,
      "/stamp/verify?order=random",
    );
    assert.deepEqual({ checked, bad }, { checked: STAMPED_MIB * PAGES_PER_MIB, bad: 0 });
    await ask(host, port, "/stamp/pace?rate=40");
    await ask(host, port, "/disk/stop");
    const rows = await ask<{ wrong: number; after: number }>(host, port, "/disk/verify");
    assert.deepEqual({ wrong: rows.wrong, after: rows.after }, { wrong: 0, after: 0 });
    const { failures } = await ask<{ failures: number }>(host, port, "/disk/status");
    assert.equal(failures, 0);
    await ask(host, port, "/disk/start?pause=1000");
    const left = readdirSync(this.memory).filter((name) => /suspended|device-state/.test(name));
    assert.deepEqual(left, [], "nothing of the suspension is left");
  }

  /** Where the guest's memory is: there is one guest. */
  get memory(): string {
    const { memoryDirectory } = this.#host;
    const id = readdirSync(memoryDirectory).find((name) => /^[0-9a-f]{8}-/.test(name));
    return join(memoryDirectory, id ?? "");
  }
}

/** What can be seen from outside of a guest that is suspended or resumed, in turn. */
export type Sight = "saving" | "stopped" | "written" | "saved" | "started" | "told";

/** Kills processes as soon as something is seen, `ms` later. @returns what the record said then, or `not seen` when it was over before, or too far. */
export async function killAt(
  host: Host,
  memory: string,
  how: { victims: readonly ("agent" | "emulator")[]; at: Sight; ms: number; over: { isOver: boolean } },
): Promise<string> {
  const { victims, at, ms, over } = how;
  const until = performance.now() + SPIN_MS;
  const before = emulatorsBelow(host.stateDirectory);
  for (;;) {
    const step = stepOf(memory);
    const names = existsSync(memory) ? readdirSync(memory) : [];
    const started = at === "started" ? emulatorsBelow(host.stateDirectory)[0] : undefined;
    const sights: Record<Sight, boolean> = {
      saving: step !== undefined,
      stopped: names.some((name) => name.includes("device-state")),
      written: names.includes("suspended"),
      saved: step === "saved",
      started: started !== undefined,
      told: step === "told",
    };
    if (sights[at]) {
      const from = performance.now();
      while (performance.now() < from + ms);
      const emulator = started ?? before[0] ?? emulatorsBelow(host.stateDirectory)[0];
      return whileItStandsStill(host.pid, () => {
        const now = stepOf(memory);
        // The new one is the guest's own by then, which would end with it.
        const isLate = victims.includes("emulator") && started !== undefined && now !== "saved";
        if (isLate) return "not seen";
        for (const victim of victims) signal(victim === "agent" ? host.pid : emulator, "SIGKILL");
        return now ?? "over";
      });
    }
    if (over.isOver) return "not seen";
    assert.ok(performance.now() < until, "it is seen");
    await turn();
  }
}

function stepOf(memory: string): string | undefined {
  try {
    return (JSON.parse(readFileSync(join(memory, "suspended.json"), "utf8")) as { step: string }).step;
  } catch {
    return undefined;
  }
}

/** Waits until the guest has come to rest in one of these states. */
export async function stateOf(host: Host, states: readonly string[]): Promise<string> {
  let state = "";
  await eventually(`the guest is ${states.join(" or ")}`, async () => {
    const guest = (await host.guests()).get("web");
    state = guest?.state ?? "gone";
    return states.includes(state);
  });
  return state;
}
