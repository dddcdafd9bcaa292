import { KEY_IDENTITY, LOCAL_IDENTITY } from "../../base/index.js";
import type { Services } from "../services.js";
import { Rehearsal } from "./rehearsal.js";
import type { OwnAddress } from "./rehearsed-transfer.js";

/** The rehearsal of an agent that peers reach at `url`, if they do. */
export function rehearsalOf(services: Services, url: () => string | undefined): Rehearsal {
  const { configuration, credentials } = services;
  const { limits, rehearsalMs, socket } = configuration;
  const overTcp = credentials?.identity ?? KEY_IDENTITY;
  const addresses = (): OwnAddress[] => {
    const own = url();
    const local = { url: `unix:${socket}`, holder: LOCAL_IDENTITY };
    return own === undefined ? [local] : [{ url: own, holder: overTcp }, local];
  };
  return new Rehearsal({
    ...services,
    budgetMs: rehearsalMs,
    directory: services.paths.rehearsal,
    dialler: services,
    limits,
    addresses,
  });
}
