/**
 * An agent ends in the pause of a guest that writes its disk: its emulator is held up, so that the agent's commands are still to be carried out when the agent is killed. What of them the
 * emulator does then, it does alone; the guest may stand still until there is an agent again, and is whole then.
 */
import assert from "node:assert/strict";
import { setTimeout as wait } from "node:timers/promises";
import { after, before, describe, test } from "node:test";
import { assertSound, goOn, rows } from "../support/disk-rows.js";
import { eventually, emulatorsBelow, Hosts, type Host } from "../support/hosts.js";
import { MIB } from "../support/images.js";
import { runSample, whenTransfersEnd } from "../support/sample-guest.js";
import { removeGuest } from "../support/two-hosts.js";

const PORT = 8214;
const CHILD_PORT = 8215;
/** How long the agent sends commands to an emulator that does not carry them out. */
const HELD_MS = 300;
/** When the emulator is held up: a transfer takes some tenths of a second until its pause. RAMET_PAUSES=N plays N moments of each kind. */
const MOMENTS = Number(process.env["RAMET_PAUSES"] ?? 2);
const FIRST_MS = 60;
const STEP_MS = 45;

describe("an agent that ends in a pause", () => {
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  before(async () => {
    const limits = { memoryMib: 2048, migrationLeaseSeconds: 2 };
    hosts = await Hosts.start(2, { port: 7214, configuration: { limits } });
    [a, b] = [hosts.at(0), hosts.at(1)];
    await runSample(a, { name: "web", hostPort: PORT, disks: [{ sizeBytes: 64 * MIB }] });
    await rows(a, PORT, "start?pause=1000");
  });
  after(() => hosts.stop());

  const answers = (host: Host) =>
    fetch(`http://${host.address}:${PORT}/disk/status`, { signal: AbortSignal.timeout(1500) }).then(
      () => true,
      () => false,
    );
  const stateAt = async (host: Host) => (await host.guests()).get("web")?.state;

  /** Begins something, holds the guest's emulator up and kills the agent. @returns whether the guest stands still without it. */
  async function killIn(begin: () => Promise<unknown>, momentMs: number): Promise<boolean> {
    const { pid = 0 } = (await a.guests()).get("web") ?? {};
    const begun = begin().catch(() => undefined);
    await wait(momentMs);
    process.kill(pid, "SIGSTOP");
    await wait(HELD_MS);
    await a.end("SIGKILL");
    process.kill(pid, "SIGCONT");
    await begun;
    const stands = !(await answers(a)) && !(await answers(b));
    await a.start();
    return stands;
  }

  const KINDS: readonly { kind: string; to: string[] }[] = [
    { kind: "fork", to: [] },
    { kind: "fork to another host", to: ["b"] },
  ];
  for (const { kind, to } of KINDS) {
    test(`of a ${kind} has its guest go on with the next one`, async (context) => {
      for (let moment = 0; moment < MOMENTS; moment += 1) {
        const { committed } = await rows(a, PORT, "status");
        const params = { name: "web", names: ["child"], forwards: [`${CHILD_PORT}:80`], to };
        const begin = () => a.call("guest.fork", params);
        const stood = await killIn(begin, FIRST_MS + moment * STEP_MS);
        context.diagnostic(`${FIRST_MS + moment * STEP_MS} ms: ${stood ? "it stood still" : "it ran on"}`);
        await eventually("it runs", async () => (await stateAt(a)) === "running");
        await goOn(a, PORT, 5);
        await assertSound(a, PORT, committed);
        for (const host of [a, b]) {
          await whenTransfersEnd(host);
          if (!(await host.guests()).has("child")) continue;
          await goOn(host, CHILD_PORT, 5);
          await assertSound(host, CHILD_PORT, committed);
          await removeGuest(host, "child");
        }
      }
    });
  }

  test("of a migration leaves one guest, whole, on either host", async (context) => {
    for (let moment = 0; moment < MOMENTS; moment += 1) {
      const { committed } = await rows(a, PORT, "status");
      const begin = () => a.call("guest.migrate", { name: "web", to: "b" });
      const stood = await killIn(begin, FIRST_MS + moment * STEP_MS);
      context.diagnostic(
        `${FIRST_MS + moment * STEP_MS} ms: ${stood ? "it stood still" : "it ran, here or there"}`,
      );
      for (const host of [a, b]) await whenTransfersEnd(host);
      await eventually("one of them runs", async () => {
        const states = [await stateAt(a), await stateAt(b)].filter((state) => state !== undefined);
        return states.length === 1 && states[0] === "running";
      });
      const here = (await stateAt(a)) === "running" ? a : b;
      await goOn(here, PORT, 5);
      await assertSound(here, PORT, committed);
      const emulators = [a, b].flatMap((host) => emulatorsBelow(host.stateDirectory));
      assert.equal(emulators.length, 1, "one emulator has it");
      if (here === a) continue;
      await b.call("guest.migrate", { name: "web", to: "a" });
      await whenTransfersEnd(b);
      await eventually("it is back", async () => (await stateAt(a)) === "running");
    }
  });
});
