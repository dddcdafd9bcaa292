import type { Clock, Identity, Log } from "../base/index.js";
import type { Connection, Handed, ListenerOptions, Purpose } from "../lane/index.js";
import { takeDescriptor } from "../memory/index.js";
import type { Sessions } from "./api/sessions.js";
import type { BlockPurpose } from "./blocks/block-supply.js";
import type { LoadedConfiguration } from "./configuration/index.js";
import { FaultThreadHandle } from "./faults/fault-thread.js";
import type { Socketed } from "./faults/messages.js";
import { goFirst } from "./priority.js";
import type { Services } from "./services.js";
import { takeArrived, type LaneRoutes } from "./transfers/lane-routes.js";
import { LanesAhead } from "./transfers/lanes-ahead.js";
import { newIdentity } from "./transfers/new-transfer.js";
import { SpareLanes } from "./transfers/spare-lanes.js";

/** Starts the thread that serves faults; the urgent lanes that come to it are led to the sessions of their transfers. */
export function startFaultThread(
  { tls, key, logLevel }: LoadedConfiguration,
  { clock, log, routes }: { clock: Clock; log: Log; routes: LaneRoutes },
): FaultThreadHandle {
  const onArrived = (lane: Parameters<typeof takeArrived>[1]): void => takeArrived(routes, lane, log);
  return new FaultThreadHandle({ settings: { tls, key, logLevel }, clock, onArrived, onThread: goFirst });
}

/** The page lanes that wait for transfers to come, of this host's guests and of its children; `close` ends all of them. */
export function waitingLanes(
  configuration: LoadedConfiguration,
  parts: Pick<Services, "clock" | "log" | "routes" | "peers" | "faults" | "credentials">,
): { lanes: Pick<Services, "spares" | "lanesAhead">; close(): void } {
  const { clock, log, routes, peers, faults, credentials } = parts;
  const identify = () => newIdentity({ routes });
  const idleMs = configuration.limits.warmIdleSeconds * 1000;
  const spares = new SpareLanes({ routes, peers, identify, idleMs, clock, log });
  const lanesAhead = new LanesAhead({ faults, dialler: { configuration, credentials, clock } });
  const close = (): void => {
    spares.close();
    lanesAhead.close();
  };
  return { lanes: { spares, lanesAhead }, close };
}

/** What becomes of the connections to one of the agent's sockets: who they are for decides whether they are let in, and takes them. */
export function connectionsTo(
  { routes, relays, blocks, faults }: Services,
  sessions: Sessions,
  at: Socketed,
): Pick<ListenerOptions, "authorise" | "onConnection" | "handOn"> {
  return {
    authorise: (hello: Connection["hello"], identity: Identity) => {
      const { purpose, transfer, token } = hello;
      if (purpose === "relay") relays.find(identity, transfer, token);
      else if (isBlocks(purpose)) blocks.grants.routes.find(identity, transfer, token);
      else if (purpose !== "control") routes.find(identity, transfer, token);
    },
    onConnection: (connection: Connection) => {
      const { purpose, transfer, token, epoch = 0, features } = connection.hello;
      const offers = { lz4: features.includes("lz4") };
      const { identity } = connection;
      if (purpose === "control") sessions.take(connection);
      else if (purpose === "relay")
        relays.find(identity, transfer, token).acceptLane(epoch, connection, offers);
      else if (isBlocks(purpose))
        blocks.grants.routes.find(identity, transfer, token).acceptLane(purpose, epoch, connection, offers);
      else routes.find(identity, transfer, token).acceptLane(purpose, epoch, connection, offers);
    },
    handOn: {
      duplicate: (descriptor) => takeDescriptor(process.pid, descriptor),
      take: (handed: Handed) => faults.take(at, handed),
    },
  };
}

function isBlocks(purpose: Purpose): purpose is BlockPurpose {
  return purpose === "block-urgent" || purpose === "block-bulk";
}
