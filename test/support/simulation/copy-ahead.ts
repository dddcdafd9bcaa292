import { silentLog, sleep } from "../../../src/base/index.js";
import { PrecopySource, TransferError } from "../../../src/transfer/index.js";
import type { EmulatorOptions } from "./emulator.js";
import type { Life } from "./host.js";
import { trackedBy } from "./mortal.js";
import { compressionOf } from "./orders.js";
import { ASK_MS, type SimulatedPeer } from "./peer.js";

/** What copies memory ahead of a migration, for as long as the child's host has the child. */
export function copyAhead(
  options: EmulatorOptions & { life: Life; peer: SimulatedPeer; isOver(): boolean },
): PrecopySource {
  const { life, guest, plan, peer, scheduler } = options;
  const source = new PrecopySource({
    transfer: peer.child.transfer,
    memory: trackedBy(life, guest.memory),
    clock: life.clock,
    log: silentLog,
    compress: compressionOf(plan),
    maxWindowBytes: plan.maxWindowBytes,
  });
  const watch = async (): Promise<void> => {
    while (!options.isOver()) {
      await sleep(life.clock, ASK_MS);
      // A child whose agent ended before the switch is removed; nobody else would tell so.
      if ((await peer.show()) === "gone")
        source.fail(new TransferError("child-failed", "the child's host does not have it any more"));
    }
  };
  watch().catch((error: unknown) => scheduler.fail(error));
  return source;
}
