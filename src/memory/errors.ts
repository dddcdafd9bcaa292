import { CodedError } from "../base/index.js";

/**
 * - `not-built`: the native parts are missing; scripts/build makes them.
 * - `unsupported`: the kernel lacks something (userfaultfd, or write protection of shared memory).
 * - `not-permitted`: this process may not open, create or take a userfaultfd.
 * - `no-userfaultfd`: the emulator was not started under the preloaded library.
 * - `not-mapped`: the emulator has not mapped the memory file, or not as a whole, or not shared.
 * - `bad-file`: the memory file cannot be read or is not whole pages.
 * - `no-memory`: the host cannot hold another page.
 * - `gone`: the emulator's process has ended.
 * - `failed`: the kernel refused for a reason that is none of the above.
 */
export type MemoryErrorCode =
  | "not-built"
  | "unsupported"
  | "not-permitted"
  | "no-userfaultfd"
  | "not-mapped"
  | "bad-file"
  | "no-memory"
  | "gone"
  | "failed";

/** What the machine or the emulator got wrong about guest memory. */
export class MemoryError extends CodedError<MemoryErrorCode> {}
