import type { Handlers } from "../../control/index.js";
import type { ImageStore } from "../../disk/index.js";
import type { GuestDisks } from "../disks/guest-disks.js";
import { LayerLoans } from "../disks/layer-loans.js";
import { BlockGrants } from "./block-grants.js";
import type { ImagePulls, ImagePullsOptions } from "./image-pulls.js";
import { ImageSupply } from "./image-supply.js";

/** Disks between hosts: what this one gives, and what it brings. */
export interface Blocks {
  readonly grants: BlockGrants;
  readonly pulls: ImagePulls;
  readonly loans: LayerLoans;
  /** What peers ask for. */
  readonly handlers: Pick<
    Handlers<"peer">,
    "peer.findImage" | "peer.openImage" | "peer.closeBlocks" | "peer.openLayer" | "peer.returnLayer"
  >;
  /** Ends what is given. */
  close(): void;
}

/** Makes the parts for disks between hosts. */
export function openBlocks(
  parts: { images: ImageStore; pulls: ImagePulls; disks: GuestDisks } & Pick<
    ImagePullsOptions,
    "clock" | "log"
  >,
): Blocks {
  const { images, pulls, disks, clock, log } = parts;
  const grants = new BlockGrants({ clock, log });
  const supply = new ImageSupply({ images, grants });
  const onReturned = (disk: string): Promise<void> => disks.removeUnused([disk]);
  const loans = new LayerLoans({ store: disks.store, grants, onReturned, log });
  return {
    grants,
    pulls,
    loans,
    handlers: {
      "peer.findImage": (params) => supply.find(params),
      "peer.openImage": (params, { session }) => supply.open(params, session.identity),
      "peer.openLayer": (params, { session }) => loans.open(params, session.identity),
      "peer.returnLayer": async (params, { session }) => {
        await loans.takeBack(params, session.identity);
        return {};
      },
      "peer.closeBlocks": async ({ grant }, { session }) => {
        grants.end(grant, session.identity);
        return Promise.resolve({});
      },
    },
    close: () => grants.close(),
  };
}
