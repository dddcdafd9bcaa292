import { messageOf } from "../../src/base/index.js";
import type { Laboratory, Migration } from "./laboratory.js";
import { MODES, Rival, type Mode, type RivalMigration } from "./rival.js";
import type { SampleGuest } from "./sample.js";

/** Who moves a guest: Ramet, or the emulator by itself in one of its ways. */
export interface Mover {
  /** Behind the name of a metric. */
  suffix: "" | `_qemu_${Mode}`;
  guest(): SampleGuest;
  move(): Promise<Moved>;
}

/** What is known of every move. */
export type Moved = Pick<Migration & RivalMigration, "totalMs" | "downtimeMs" | "cpuSeconds">;

/**
 * Lets Ramet and the emulator take turns: two guests that are alike, each moved forth and back. While one is measured, the other one
 * uses no processor.
 * @param options.prepare brings a guest into the state in which it is measured; called once for each.
 * @param options.rounds how often each has its turn; the first round, number 0, comes on top and warms everything up.
 */
export async function takeTurns(options: {
  laboratory: Laboratory;
  versusQemu: boolean;
  rounds: number;
  modes?: readonly Mode[];
  prepare(guest: SampleGuest): Promise<void>;
  measure(mover: Mover, round: number): Promise<void>;
  /** The emulator's guest did not work any more when it had been moved. It is booted anew. Without, that ends everything. */
  onLost?(mover: Mover): void;
}): Promise<void> {
  const { laboratory, rounds, measure } = options;
  await options.prepare(laboratory.guest);
  const ramet: Mover = { suffix: "", guest: () => laboratory.guest, move: () => laboratory.migrate() };
  if (!options.versusQemu) {
    for (let round = 0; round <= rounds; round += 1) await measure(ramet, round);
    return;
  }
  await Rival.use(await laboratory.emulator(), async (rival) => {
    await options.prepare(rival.guest);
    await rival.stop();
    for (let round = 0; round <= rounds; round += 1) {
      await measure(ramet, round);
      for (const mode of options.modes ?? MODES) {
        await rival.resume();
        const mover = moverOf(rival, mode);
        await measure(mover, round).catch(async (error: unknown) => {
          if (options.onLost === undefined) throw error;
          process.stderr.write(`the emulator lost its guest by ${mode}: ${messageOf(error)}\n`);
          options.onLost(mover);
          await rival.reboot();
          await options.prepare(rival.guest);
        });
        await rival.stop();
      }
    }
  });
}

function moverOf(rival: Rival, mode: Mode): Mover {
  return { suffix: `_qemu_${mode}`, guest: () => rival.guest, move: () => rival.migrate(mode) };
}
