import type { Handlers } from "../../control/index.js";
import type { ImageStore } from "../../disk/index.js";
import { findData } from "../../memory/index.js";
import { ownHostId } from "../images/open-images.js";
import type { Configuration } from "../configuration/index.js";
import type { Paths } from "../store/paths.js";
import type { GuestDisks } from "../disks/guest-disks.js";
import { LayerLoans } from "../disks/layer-loans.js";
import { BlockGrants } from "./block-grants.js";
import { ImagePulls, type ImagePullsOptions } from "./image-pulls.js";
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
  /** Ends what is given, and stops what is brought: it is gone on with by who asks for it again. */
  close(): Promise<void>;
}

/** Makes the parts for disks between hosts. */
export async function openBlocks(
  parts: { configuration: Configuration; paths: Paths; images: ImageStore; disks: GuestDisks } & Pick<
    ImagePullsOptions,
    "clock" | "log"
  >,
): Promise<Blocks> {
  const { configuration, paths, images, disks, clock, log } = parts;
  const grants = new BlockGrants({ clock, log });
  const directory = configuration.images.directories?.[0] ?? paths.images;
  const hostId = await ownHostId(paths.hostId);
  const pulls = new ImagePulls({ images, directory, hostId, findData, clock, log });
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
    async close() {
      grants.close();
      await pulls.close();
    },
  };
}
