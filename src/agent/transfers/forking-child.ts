import type { CodedError } from "../../base/index.js";
import type { ChildTarget, ForkChild, PageDigests, ParentStep } from "../../transfer/index.js";
import type { TransferEntry } from "./transfer-entry.js";

/** One child of a fork on the parent's side, however it comes to its memory. */
export interface ForkingChild extends ForkChild {
  readonly entry: TransferEntry;
  readonly target: ChildTarget & { readonly controlBytes: number };
  onStep(step: ParentStep): void;
  /** Given the digests of all pages at the instant, where those are to be compared. */
  onDigests?(digests: PageDigests): void;
  /** It never came to a child that runs, or its child did not start. */
  fail(error: unknown): void;
  /** Waits until the child has all its memory, or never will. Returns the failure. */
  finish(): Promise<CodedError | undefined>;
  detach(): void;
}
