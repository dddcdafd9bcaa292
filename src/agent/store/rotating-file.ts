import { closeSync, fstatSync, openSync, readSync, renameSync, rmSync, statSync, writeSync } from "node:fs";

/** Bytes a guest's console may keep on disk: half in the current file, half in the one before. */
export const CONSOLE_LOG_BYTES = 2 * 1024 * 1024;

/**
 * A log that never grows beyond its bound: when the current file is half of it, it becomes `<path>.1`, over the one before.
 * Writes are synchronous appends to the page cache: a guest's console is slow, and order matters more.
 */
export class RotatingFile {
  readonly #path: string;
  readonly #halfBytes: number;
  #descriptor: number | undefined;
  #sizeBytes: number;

  constructor(path: string, boundBytes: number = CONSOLE_LOG_BYTES) {
    this.#path = path;
    this.#halfBytes = boundBytes / 2;
    this.#descriptor = openSync(path, "a", 0o600);
    this.#sizeBytes = fstatSync(this.#descriptor).size;
  }

  /** Appends; after `close` the bytes are dropped. */
  append(bytes: Uint8Array): void {
    if (this.#descriptor === undefined) return;
    if (this.#sizeBytes > 0 && this.#sizeBytes + bytes.length > this.#halfBytes)
      this.#rotate(this.#descriptor);
    writeSync(this.#descriptor, bytes);
    this.#sizeBytes += bytes.length;
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #rotate(descriptor: number): void {
    closeSync(descriptor);
    renameSync(this.#path, `${this.#path}.1`);
    this.#descriptor = openSync(this.#path, "a", 0o600);
    this.#sizeBytes = 0;
  }
}

/** The last `maxBytes` of a rotating file, over its two halves; empty when nothing was written. */
export function readTail(path: string, maxBytes: number): Buffer {
  const current = tailOf(path, maxBytes);
  const before = tailOf(`${path}.1`, maxBytes - current.length);
  return Buffer.concat([before, current]);
}

/** Removes both halves. */
export function removeRotating(path: string): void {
  rmSync(path, { force: true });
  rmSync(`${path}.1`, { force: true });
}

function tailOf(path: string, maxBytes: number): Buffer {
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  const wanted = Math.min(size, maxBytes);
  if (wanted <= 0) return Buffer.alloc(0);
  const descriptor = openSync(path, "r");
  try {
    const bytes = Buffer.alloc(wanted);
    return bytes.subarray(0, readSync(descriptor, bytes, 0, wanted, size - wanted));
  } finally {
    closeSync(descriptor);
  }
}
