import type { Clock } from "../../base/index.js";
import type { RpcServerSession } from "../../control/index.js";
import type { ChainFollower } from "../disks/chain-works.js";

/** How often a client is told how far its work is. */
const TELL_MS = 200;

/** Runs `body`, which copies disks, for a connection: that is told how far it is, by `work`'s number, and when it ends, the copying does. Settles as `body` does. */
export async function withDiskWork<T>(
  clock: Clock,
  { session, work }: { session: RpcServerSession; work: number | undefined },
  body: (follower: ChainFollower) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const stopWatching = session.onEnd(() => controller.abort());
  let nextUs = 0;
  try {
    return await body({
      signal: controller.signal,
      onProgress: (progress) => {
        const nowUs = clock.nowUs();
        if (work === undefined || (nowUs < nextUs && progress.doneBytes < progress.sizeBytes)) return;
        nextUs = nowUs + TELL_MS * 1000;
        session.sendEvent("disk", { work, ...progress });
      },
    });
  } finally {
    stopWatching();
  }
}
