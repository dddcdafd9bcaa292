/** The written numbers of block lanes. They never change their meaning, and none of them is a kind of the page lanes. See proto/BLOCKS.md. */

/** Byte 0 of a frame on a block lane. */
export const BLOCK_FRAME_KIND = { read: 16, map: 17, content: 18, extents: 19, failed: 20 } as const;

/** What a stretch of a disk is. */
export const BLOCK_EXTENT = { data: 1, hole: 2 } as const;

/** Why a request cannot be answered: the disk cannot be read there, or it is not there any more. */
export const BLOCK_FAILURE = { unreadable: 1, gone: 2 } as const;

export type BlockFrameKind = keyof typeof BLOCK_FRAME_KIND;
export type BlockFailure = keyof typeof BLOCK_FAILURE;

/** The name behind a kind's number; undefined when this version knows none. */
export function blockKindOf(value: number): BlockFrameKind | undefined {
  return nameOf(BLOCK_FRAME_KIND, value);
}

/** As `blockKindOf`. */
export function blockFailureOf(value: number): BlockFailure | undefined {
  return nameOf(BLOCK_FAILURE, value);
}

function nameOf<Name extends string>(numbers: Record<Name, number>, value: number): Name | undefined {
  for (const name in numbers) if (numbers[name] === value) return name;
  return undefined;
}
