import type { Handlers } from "../../control/index.js";
import type { Services } from "../services.js";
import type { BootUploads } from "../store/boot-uploads.js";
import type { IncomingTransfers } from "../transfers/incoming-transfers.js";
import { describeToPeer } from "./agent-handlers.js";

/** What other agents ask of this one. */
export function peerHandlers(
  services: Services,
  { incoming, uploads }: { incoming: IncomingTransfers; uploads: BootUploads },
): Handlers<"peer"> {
  return {
    ...services.blocks.handlers,
    "peer.info": () => describeToPeer(services),
    "peer.prepare": (params, context) => incoming.prepare(params, context),
    "peer.putFile": (params, { session }) => uploads.put(params, session),
    "peer.lacks": (params, context) => incoming.lacks(params, context),
    "peer.ahead": (params, context) => incoming.ahead(params, context),
    "peer.relayTo": (params, context) => incoming.relayTo(params, context),
    "peer.relayFrom": (params, context) => incoming.relayFrom(params, context),
    "peer.start": (params, context) => incoming.start(params, context),
    "peer.run": (params, context) => incoming.run(params, context),
    "peer.show": (params, context) => incoming.show(params, context),
    "peer.cancel": (params, context) => incoming.cancel(params, context),
    "peer.fence": (params, context) => incoming.fence(params, context),
    "peer.warm": (params, context) => incoming.warm(params, context),
    "peer.spare": (params, context) => incoming.spare(params, context),
  };
}
