/**
 * Decodes one LZ4 block (https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md) in the plainest way, to compare the
 * library with.
 * @returns undefined when the block is malformed or its content is not of exactly this length.
 */
export function decodeBlock(block: Uint8Array, contentBytes: number): Uint8Array | undefined {
  const content = new Uint8Array(contentBytes);
  let from = 0;
  let to = 0;
  const lengthOf = (nibble: number): number => {
    let length = nibble;
    if (nibble < 15) return length;
    for (;;) {
      const more = block[from++];
      if (more === undefined) return Infinity;
      length += more;
      if (more < 255) return length;
    }
  };
  for (;;) {
    const token = block[from++];
    if (token === undefined) return undefined;
    const literals = lengthOf(token >> 4);
    if (from + literals > block.length || to + literals > contentBytes) return undefined;
    content.set(block.subarray(from, from + literals), to);
    from += literals;
    to += literals;
    // Only the last sequence has no match.
    if (from === block.length) return to === contentBytes ? content : undefined;
    if (from + 2 > block.length) return undefined;
    const offset = (block[from] as number) + (block[from + 1] as number) * 256;
    from += 2;
    const match = lengthOf(token & 15) + 4;
    if (offset === 0 || offset > to || to + match > contentBytes) return undefined;
    for (let index = 0; index < match; index += 1, to += 1) content[to] = content[to - offset] as number;
  }
}
