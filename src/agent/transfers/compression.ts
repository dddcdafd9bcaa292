import { isIP } from "node:net";
import type { CompressionChoice, CompressionProgress } from "../../transfer/index.js";

/** Most agents that are remembered; of more, those that were heard of last. */
const MAX_LEARNED = 256;

/** What transfers have found out about compression on the way to other agents, while this agent lives. */
export class LearnedCompression {
  readonly #lz4 = new Map<string, boolean>();

  /** Whether lz4 was the faster way to the agent at `url` at last; undefined when nobody has measured it. */
  of(url: string): boolean | undefined {
    return this.#lz4.get(url);
  }

  /** Takes note of a transfer that has ended. */
  note(url: string, progress: CompressionProgress | undefined): void {
    if (progress?.measured === undefined) return;
    this.#lz4.delete(url);
    this.#lz4.set(url, progress.now === "lz4");
    const [oldest] = this.#lz4.keys();
    if (this.#lz4.size > MAX_LEARNED && oldest !== undefined) this.#lz4.delete(oldest);
  }
}

/**
 * How a transfer to the agent at `url` begins, and whether it stays so. `auto` begins as the latest one to the same agent found better, otherwise compressed
 * unless the peer is on this machine, where a frame of mixed content costs more to compress than to carry raw; and it goes on as measured.
 */
export function compressionFor(
  choice: CompressionChoice,
  url: string,
  learned: LearnedCompression,
): { compress: boolean; compression: CompressionChoice } {
  const compress = choice === "auto" ? (learned.of(url) ?? !isThisMachine(url)) : choice === "lz4";
  return { compress, compression: choice };
}

/**
 * Whether there is reason enough to begin so that `auto` need not look at once: the latest transfer to the agent at `url` went so, or it is on this machine, where
 * samples taken while the child still starts on the same processors say little.
 */
export function isTrusted(url: string, compress: boolean, learned: LearnedCompression): boolean {
  return compress === (learned.of(url) ?? (isThisMachine(url) ? false : undefined));
}

function isThisMachine(url: string): boolean {
  if (url.startsWith("unix:")) return true;
  const { hostname } = new URL(url);
  return (
    hostname === "localhost" || hostname === "[::1]" || (isIP(hostname) === 4 && hostname.startsWith("127."))
  );
}
