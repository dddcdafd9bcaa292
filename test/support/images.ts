import { execFileSync } from "node:child_process";
import { fstatSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realClock, silentLog, SeededRandom, type Clock } from "../../src/base/index.js";
import { ImageStore, QemuImg, type FindData } from "../../src/disk/index.js";

export const MIB = 1024 * 1024;

/** Every byte counts as data: what a file system that knows no holes says. */
export const allData: FindData = (fd, offset) => {
  const { size } = fstatSync(fd);
  return offset < size ? { start: offset, end: size } : undefined;
};

/** A directory for one test, removed after it. */
export async function withDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "ramet-images-"));
  try {
    await body(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** A clock whose wall time can be moved. */
export function movableClock(): { clock: Clock; move(byMs: number): void } {
  let offsetMs = 0;
  return {
    clock: { ...realClock, wallMs: () => realClock.wallMs() + offsetMs },
    move: (byMs) => (offsetMs += byMs),
  };
}

/** The store of one host. */
export function openStore(
  directories: string | string[],
  options: { host?: string; clock?: Clock; program?: string; uid?: number } = {},
): Promise<ImageStore> {
  const clock = options.clock ?? realClock;
  const { host = "hosta", program } = options;
  return ImageStore.open({
    directories: [directories].flat(),
    makeFirst: true,
    host: { id: `id-of-${host}`, name: host },
    qemuImg: new QemuImg({ clock, log: silentLog, ...(program === undefined ? {} : { program }) }),
    findData: allData,
    uid: options.uid,
    clock,
    log: silentLog,
  });
}

/** Writes a sparse raw disk of random pieces, the same for the same seed. */
export async function makeRaw(
  path: string,
  options: { seed: number; sizeBytes: number; pieces?: number },
): Promise<string> {
  const random = new SeededRandom(options.seed);
  const file = await open(path, "w");
  try {
    await file.truncate(options.sizeBytes);
    for (let piece = 0; piece < (options.pieces ?? 4); piece += 1) {
      const offset = random.below(options.sizeBytes / 512) * 512;
      const length = Math.min((1 + random.below(200)) * 512, options.sizeBytes - offset);
      const bytes = Buffer.from(Array.from({ length }, () => random.below(256)));
      await file.write(random.chance(0.2) ? Buffer.alloc(length) : bytes, 0, length, offset);
    }
  } finally {
    await file.close();
  }
  return path;
}

/** Runs qemu-img as a person would. */
export function qemuImg(...args: string[]): void {
  execFileSync("qemu-img", args, { stdio: ["ignore", "ignore", "pipe"] });
}

/** A qcow2 file of the same content. */
export function toQcow2(raw: string, path: string, ...options: string[]): string {
  qemuImg("convert", "-f", "raw", "-O", "qcow2", ...options, raw, path);
  return path;
}
