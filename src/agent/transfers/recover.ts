import type { Services } from "../services.js";
import type { IncomingTransfers } from "./incoming-transfers.js";
import { finishRollBacks } from "./roll-back.js";
import { recoverParent } from "./recover-parent.js";

/**
 * Goes on with every transfer that an earlier agent did not bring to its end. Before anybody can reach this agent: a child that dials finds its transfer
 * there. Emulators are not spoken to yet, because they may wait for pages.
 */
export async function recoverTransfers(services: Services, incoming: IncomingTransfers): Promise<void> {
  const { registry } = services;
  finishRollBacks(services);
  for (const { guest, parents, children } of registry.unfinished) {
    try {
      // A guest that is a parent by now was complete before; that it was a child must not make it run.
      const open = children.filter(({ record }) => parents.length === 0 || record.complete === undefined);
      for (const child of open) registry.whenAnswering(guest, await incoming.recover(guest, child));
      if (parents.length > 0) registry.whenAnswering(guest, recoverParent(services, guest, parents));
    } catch (error) {
      registry.withhold(guest, error);
    }
  }
}
