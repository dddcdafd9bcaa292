import { closeSync, fstatSync, openSync, readSync, statSync, truncateSync, writeFileSync } from "node:fs";
import type { Clock } from "../base/index.js";
import { KEPT_LOG_BYTES, LOG_CHECK_INTERVAL_MS, MAX_LOG_BYTES } from "./limits.js";

/** Bytes of a file; 0 when there is none. */
export function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** The last bytes of a file as text, of what begins at `fromByte` unless that was cut off since; empty when there is none. */
export function tailOf(path: string, maxBytes: number, fromByte = 0): string {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch {
    return "";
  }
  try {
    const sizeBytes = fstatSync(file).size;
    const ownBytes = sizeBytes < fromByte ? sizeBytes : sizeBytes - fromByte;
    const bytes = Buffer.alloc(Math.min(ownBytes, maxBytes));
    const got = readSync(file, bytes, 0, bytes.length, sizeBytes - bytes.length);
    return bytes.toString("utf8", 0, got).trim();
  } finally {
    closeSync(file);
  }
}

/**
 * Cuts a log that has grown too long: its last part goes to PATH.1, and it starts anew. The emulator goes on appending meanwhile; what
 * it writes between the two steps may be lost, which a log can bear and a full disk cannot. Nothing is thrown: whatever is wrong with
 * a log, its guest is not.
 */
export function trimLog(path: string): void {
  if (sizeOf(path) <= MAX_LOG_BYTES) return;
  try {
    writeFileSync(`${path}.1`, tailOf(path, KEPT_LOG_BYTES), { mode: 0o600 });
  } catch {
    // A disk that is full already: room is made all the more.
  }
  try {
    truncateSync(path, 0);
  } catch {
    // Removed since it was looked at.
  }
}

/** Returns what cuts logs back that have grown too long, looking at them only now and then, however often it is called. */
export function logTrimmer(paths: readonly string[], clock: Clock): () => void {
  let checkedUs = clock.nowUs();
  return () => {
    if (clock.nowUs() - checkedUs < LOG_CHECK_INTERVAL_MS * 1000) return;
    checkedUs = clock.nowUs();
    for (const path of paths) trimLog(path);
  };
}
