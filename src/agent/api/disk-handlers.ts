import type { Handlers } from "../../control/index.js";
import { layerViewOf } from "../disks/guest-disks.js";
import type { Services } from "../services.js";

type DiskHandlers = Pick<Handlers<"client">, Extract<keyof Handlers<"client">, `disk.${string}`>>;

/** Commands on differencing disks. */
export function diskHandlers({ disks, registry }: Services): DiskHandlers {
  const nameOf = (guest: string): string | undefined => registry.byId(guest)?.name;
  return {
    "disk.list": async () => ({ disks: disks.store.list().map((disk) => disks.view(disk, nameOf)) }),
    "disk.chain": async ({ disk }) => ({ chain: disks.store.chainOf(disk).map(layerViewOf) }),
  };
}
