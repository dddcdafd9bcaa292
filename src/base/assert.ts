/** Thrown when Ramet itself is wrong. Never used for what a peer, a user or the machine did. */
export class AssertionError extends Error {
  override name = "AssertionError";
}

/**
 * States something that is true unless Ramet has a bug. Stays on in production.
 * @throws AssertionError when `condition` is false.
 */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/**
 * Marks the end of an exhaustive switch; the compiler rejects a call that can be reached.
 * @throws AssertionError always.
 */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${JSON.stringify(value)}`);
}
