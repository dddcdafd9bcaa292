import { DeadlineError, messageOf, withDeadline, type Clock } from "../../base/index.js";
import type { HeldImage, ImageView } from "../../disk/index.js";
import { AgentError } from "../errors.js";
import type { Services } from "../services.js";
import { dialLane } from "../transfers/dial-lane.js";
import { hostOrigin, type ImageOrigin, type ImageSourceHost } from "./image-origins.js";
import type { ImagePull, PullProgress } from "./image-pulls.js";

/** A source answers these from what it knows, and at the most opens two files. */
export const CALL_DEADLINE_MS = 10_000;

/** How often it is looked how far an image is. */
const LOOK_MS = 200;

export interface PullOptions {
  reference: string;
  /** The host, as commands name it. */
  from: string;
  tenant: string;
  identifier: string | undefined;
  onProgress: (progress: PullProgress) => void;
  /** Whoever waits for it has gone; the image comes all the same. */
  signal: AbortSignal;
}

/**
 * Copies an image from another host, unless its bytes are here; the tenant has it then.
 * @throws AgentError `no-such-peer`, `bad-request`, `cancelled`; DiskError; what the other host says.
 */
export async function pullImage(
  services: Services,
  options: PullOptions,
): Promise<{ image: ImageView; wireBytes: number }> {
  const { images, peers } = services;
  const { reference, tenant } = options;
  const url = peers.resolve(options.from);
  if (peers.isSelf(url)) throw new AgentError("bad-request", `${options.from} is this host itself`);
  const client = await peers.connect(url);
  const params = { reference, tenant };
  const found = await client.call("peer.findImage", params, { deadlineMs: CALL_DEADLINE_MS });
  const as = { tenant, identifier: options.identifier ?? found.identifier };
  const { digest, sizeBytes } = found;
  // What is damaged is brought again, which puts it right.
  if (await images.hasSound(digest)) return { image: await images.assign(digest, as), wireBytes: 0 };
  const origin = originAt(services, { url, name: options.from, tenant });
  const pull = await services.blocks.pulls.begin({ digest, sizeBytes, tenant }, [origin]);
  const held = await follow(pull, { ...options, clock: services.clock });
  try {
    return { image: await images.assign(digest, as), wireBytes: pull.progress.wireBytes };
  } finally {
    held.letGo();
  }
}

/** What is needed of an agent to read another one's images. */
export type PullServices = Pick<Services, "peers" | "clock" | "log" | "configuration" | "credentials">;

/** A host that gives images, reached over the connection to it, which is made again when it was lost. */
export function originAt(
  services: PullServices,
  { url, name, tenant }: { url: string; name: string; tenant: string },
): ImageOrigin {
  return hostOrigin(sourceAt(services, url, tenant), { name, clock: services.clock });
}

function sourceAt(services: PullServices, url: string, tenant: string): ImageSourceHost {
  const { peers, log } = services;
  return {
    openImage: async (digest) => {
      const { client, identity: holder } = await peers.link(url);
      const params = { digest, tenant };
      return { ...(await client.call("peer.openImage", params, { deadlineMs: CALL_DEADLINE_MS })), holder };
    },
    dial: (purpose, epoch, { grant, token, holder }) =>
      dialLane(services, { url, holder, purpose, epoch, transfer: grant, token }),
    closeImage: (grant) => {
      const close = async (): Promise<void> => {
        const client = await peers.connect(url);
        await client.call("peer.closeBlocks", { grant }, { deadlineMs: CALL_DEADLINE_MS });
      };
      // It ends by itself, too.
      close().catch((error: unknown) =>
        log.debug({ url, problem: messageOf(error) }, "a grant was not given back"),
      );
    },
  };
}

/** Tells how far an image is until it is here. */
async function follow(
  pull: ImagePull,
  options: Pick<PullOptions, "onProgress" | "signal"> & { clock: Clock },
): Promise<HeldImage> {
  const { clock, signal, onProgress } = options;
  for (;;) {
    onProgress(pull.progress);
    if (signal.aborted)
      throw new AgentError("cancelled", "nobody waits for the image any more; it comes all the same");
    try {
      const held = await withDeadline(clock, LOOK_MS, "an image's end", pull.image);
      onProgress(pull.progress);
      return held;
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error;
    }
  }
}
