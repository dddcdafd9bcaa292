import { rmSync } from "node:fs";
import type { Guest } from "../guests/guest.js";
import { connectOrGoWithout } from "../network/guest-link.js";
import type { Paths } from "../store/paths.js";
import type { ExchangeRecord } from "./exchange-record.js";

/**
 * Brings an exchange to its end that an earlier agent left: the guest's other emulator has been ended, and the one that is its own goes on where the guest stood still.
 * Errors as those of `Emulator`; may be done twice.
 */
export async function settleExchange(guest: Guest, { step }: ExchangeRecord, paths: Paths): Promise<void> {
  const { live } = guest;
  const { emulator } = live;
  const isToRun = guest.state === "running";
  if (isToRun && (await emulator.status()) === "paused") await emulator.resume();
  // The former one had the ports, and the new one may not have come to them.
  const problem = step === "told" ? await connectOrGoWithout(emulator, guest.config.network) : undefined;
  await guest.update({
    seat: live.seat,
    ...(problem === undefined ? {} : { state: guest.state, message: problem }),
  });
  rmSync(paths.exchange(guest.id), { force: true });
  guest.log.warn(
    { step, emulator: emulator.version },
    "the exchange of an emulator was settled for an earlier agent",
  );
}
