import { Laboratory } from "./laboratory.js";
import { feel, Feelings } from "./stall.js";
import { showProgress, type Bench } from "./suite.js";
import { takeTurns } from "./turns.js";

const SIZES = [
  { name: "256MiB", mib: 256 },
  { name: "1GiB", mib: 1024 },
  { name: "4GiB", mib: 4096 },
] as const;
/** Leaves room for the guest's kernel. */
const POPULATED_SHARE = 0.6;
/** Pages the guest writes each second, at random: 20 MiB/s. */
const WRITE_RATE = 5000;
/** Longer than most migrations take, so that every way is judged over the same time. */
const WINDOW_MS = { "256MiB": 2000, "1GiB": 4000, "4GiB": 6000 } as const;

/** Moves a guest that writes pages at random, by memory size: how long it takes, how long nothing runs, and what the guest feels. */
export async function measureMigrate({ runs, results, versusQemu }: Bench): Promise<void> {
  const feelings = new Feelings(results);
  await Laboratory.use(async (laboratory) => {
    for (const { name, mib } of SIZES) {
      await laboratory.boot(mib);
      await takeTurns({
        laboratory,
        versusQemu,
        rounds: runs,
        async prepare(guest) {
          await guest.write(Math.floor(mib * POPULATED_SHARE));
          await guest.rest();
        },
        async measure(mover, round) {
          const how = { mode: "write", windowMs: WINDOW_MS[name], rate: WRITE_RATE } as const;
          const { touches, moved } = await feel(mover, how);
          await mover.guest().readAll();
          showProgress(`migrate ${name}${mover.suffix}`, round, runs);
          if (round === 0) return;
          results.add(`migrate_total_${name}${mover.suffix}`, "ms", moved.totalMs);
          results.add(`migrate_downtime_${name}${mover.suffix}`, "ms", moved.downtimeMs);
          feelings.add(`migrate_stall_${name}`, mover.suffix, touches);
        },
        onLost: ({ suffix }) => results.add(`migrate_lost_${name}${suffix}`, "guests", 1),
      });
      await laboratory.endParent();
    }
  });
}
