import { CodedError } from "../../base/index.js";
import { FIRST_EPOCH } from "../transfers/lanes-ahead.js";
import { newIdentity } from "../transfers/new-transfer.js";
import type { OwnAddress, RehearsalParts } from "./rehearsed-transfer.js";

const THERE = { code: "closed", message: "it was there", fatal: true };

/**
 * The first of these addresses at which this agent reaches itself: what it says to peers may lead through something that only they can pass.
 * @throws LaneError when there is none.
 */
export async function reachableOwnAddress(
  { routes, faults }: Pick<RehearsalParts, "routes" | "faults">,
  addresses: readonly OwnAddress[],
): Promise<OwnAddress> {
  const { transfer, token } = newIdentity({ routes });
  let problem: unknown;
  for (const at of addresses) {
    const close = routes.open(transfer, token, {
      holder: () => at.holder,
      acceptLane: (_lane, _epoch, connection) => connection.close(THERE),
      shareFile: () => undefined,
    });
    try {
      // By the thread that serves faults, which has just been started, too.
      const lane = await faults.dialAhead({ ...at, transfer, token, purpose: "urgent", epoch: FIRST_EPOCH });
      lane.close(THERE);
      return at;
    } catch (error) {
      if (!(error instanceof CodedError)) throw error;
      problem = error;
    } finally {
      close();
    }
  }
  throw problem;
}
