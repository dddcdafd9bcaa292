import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, messageOf, type Clock, type Log } from "../../base/index.js";
import { FILLING_RECORD } from "../../disk/index.js";
import { directoryOf, type ImagePulls } from "./image-pulls.js";

/** Bytes that `stat` counts by. */
const BLOCK_BYTES = 512;

const DIGEST = /^[0-9a-f]{64}$/;

/** What came of an image before its pull was given up. */
export interface LeftPull {
  digest: string;
  /** The directory of images it lies in. */
  directory: string;
  /** What it takes. */
  allocatedBytes: number;
  /** When something of it came last, in milliseconds since 1970. */
  lastChangedMs: number;
}

/**
 * Removes what came of images that nobody brings any more, as far as it is older than so long. What is on its way stays, and so does what guests wait for, this agent's or the next one's. Of
 * a directory that hosts share, each host clears what it has begun itself: only it knows whether that is needed.
 * @param options.isArriving whether guests run on the image while it comes.
 * @returns what was removed, or would be.
 */
export async function clearLeftPulls(
  pulls: Pick<ImagePulls, "unlessPulled">,
  options: {
    directories: readonly string[];
    hostId: string;
    unusedForMs: number;
    dryRun: boolean;
    isArriving: (digest: string) => boolean;
    clock: Clock;
    log: Log;
  },
): Promise<LeftPull[]> {
  const { isArriving, dryRun, unusedForMs, clock, log } = options;
  const cleared: LeftPull[] = [];
  for (const left of await findLeft(options)) {
    if (left.lastChangedMs + unusedForMs > clock.wallMs()) continue;
    const isCleared = await pulls.unlessPulled(left.digest, async () => {
      if (isArriving(left.digest)) return false;
      if (!dryRun) await remove(left, options);
      return true;
    });
    if (!isCleared) continue;
    cleared.push(left);
    if (!dryRun) log.info({ ...left }, "what had come of an image that nobody brings was removed");
  }
  return cleared;
}

async function findLeft({
  directories,
  hostId,
  log,
}: {
  directories: readonly string[];
  hostId: string;
  log: Log;
}): Promise<LeftPull[]> {
  const found: LeftPull[] = [];
  for (const directory of directories) {
    const prefix = directoryOf({ digest: "" }, { directory: "", hostId });
    const names = await readdir(directory).catch((error: unknown) => {
      if (codeOf(error) !== "ENOENT")
        log.error({ directory, problem: messageOf(error) }, "a directory of images cannot be read");
      return [];
    });
    for (const name of names) {
      const digest = name.slice(prefix.length);
      if (!name.startsWith(prefix) || !DIGEST.test(digest)) continue;
      found.push({ digest, directory, ...(await sizeOf(join(directory, name))) });
    }
  }
  return found;
}

async function sizeOf(path: string): Promise<{ allocatedBytes: number; lastChangedMs: number }> {
  const names = await readdir(path).catch(() => []);
  const all = await Promise.all(
    [path, ...names.map((name) => join(path, name))].map((each) => stat(each).catch(() => undefined)),
  );
  return {
    allocatedBytes: all.reduce((sum, found) => sum + (found?.blocks ?? 0) * BLOCK_BYTES, 0),
    // A file's time has parts of a millisecond, and the clock has none.
    lastChangedMs: Math.floor(Math.max(0, ...all.map((found) => found?.mtimeMs ?? 0))),
  };
}

/** The record goes first: without it, what a crash leaves of the rest is taken for nothing that has come. */
async function remove({ digest, directory }: LeftPull, { hostId }: { hostId: string }): Promise<void> {
  const path = directoryOf({ digest }, { directory, hostId });
  await rm(join(path, FILLING_RECORD), { force: true });
  await rm(path, { recursive: true, force: true });
}
