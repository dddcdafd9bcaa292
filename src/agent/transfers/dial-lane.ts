import { isSame, type Clock, type Holder } from "../../base/index.js";
import { dial, LaneError, type Connection, type Credentials, type Purpose } from "../../lane/index.js";

const LANE_DEADLINE_MS = 5000;

/** Where a page lane is dialled, whom it is to lead to, and what for. */
export interface LaneAddress {
  url: string;
  holder: Holder;
  purpose: Exclude<Purpose, "control">;
  transfer: number;
  token: string;
  epoch: number;
}

/** What an agent dials with. */
export interface Dialler {
  configuration: { readonly key?: Buffer | undefined };
  credentials: Credentials | undefined;
  clock: Clock;
}

/**
 * Dials a page lane at an agent that must be who it is expected to be.
 * @throws LaneError `certificate-role` when somebody else answers there.
 */
export function dialLane(
  { configuration, credentials, clock }: Dialler,
  lane: LaneAddress,
): Promise<Connection> {
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
