import { isSame, type Holder } from "../../base/index.js";
import { dial, LaneError } from "../../lane/index.js";
import type { FrameLane } from "../../transfer/index.js";
import type { Services } from "../services.js";

const LANE_DEADLINE_MS = 5000;

/**
 * Dials a page lane at an agent that must be who it is expected to be.
 * @throws LaneError `certificate-role` when somebody else answers there.
 */
export function dialLane(
  { configuration, credentials, clock }: Services,
  lane: {
    url: string;
    holder: Holder;
    purpose: "urgent" | "bulk" | "precopy" | "relay";
    transfer: number;
    token: string;
    epoch: number;
  },
): Promise<FrameLane> {
  const { url, holder, ...hello } = lane;
  return dial({
    url,
    hello: { ...hello, role: "peer" },
    credentials,
    key: url.startsWith("ws://") ? configuration.key : undefined,
    requireIdentity: (identity) => {
      if (isSame(identity, holder)) return;
      const message = `${identity.name} answers at ${url}, and the transfer is of ${holder.name}`;
      throw new LaneError("certificate-role", message);
    },
    clock,
    deadlineMs: LANE_DEADLINE_MS,
  });
}
