import type { ChainOutcome, Handlers, Params, RpcServerSession } from "../../control/index.js";
import { adoptWrites } from "../disks/adopt-writes.js";
import { layerViewOf } from "../disks/guest-disks.js";
import type { Services } from "../services.js";
import { withDiskWork } from "./disk-work.js";
import { findGuest } from "./guest-handlers.js";

type DiskHandlers = Pick<Handlers<"client">, Extract<keyof Handlers<"client">, `disk.${string}`>>;

/** Commands on differencing disks. */
export function diskHandlers(services: Services): DiskHandlers {
  const { disks, registry } = services;
  const nameOf = (guest: string): string | undefined => registry.byId(guest)?.name;
  return {
    "disk.list": async () => ({ disks: disks.store.list().map((disk) => disks.view(disk, nameOf)) }),
    "disk.adopt": async (params) => ({ disks: await adoptWrites(services, params) }),
    "disk.chain": async ({ disk }) => ({ chain: disks.store.chainOf(disk).map(layerViewOf) }),
    "disk.loans": async () => ({ loans: services.blocks.loans.list() }),
    "disk.release": async ({ host, force }) => ({
      loans: await services.blocks.loans.release(host, { force }),
    }),
    "disk.flatten": async (params, { session }) => ({
      disks: await changeChain(services, { kind: "flatten", ...params }, session),
    }),
    "disk.commit": async (params, { session }) => ({
      disks: await changeChain(services, { kind: "commit", alone: false, ...params }, session),
    }),
  };
}

/** It is given up when the connection ends that asked for it. */
async function changeChain(
  services: Services,
  { guest, work, ...request }: Params<"disk.flatten"> & { kind: "flatten" | "commit" },
  session: RpcServerSession,
): Promise<ChainOutcome[]> {
  services.requireAccepting();
  return withDiskWork(services.clock, { session, work }, (follower) =>
    services.chains.change(services, findGuest(services, guest), request, follower),
  );
}
