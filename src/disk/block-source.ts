/** A stretch of a disk, told in order from some offset on: how long it is, and whether it is known to hold zeros only. */
export interface BlockExtent {
  lengthBytes: number;
  hole: boolean;
}

/**
 * Bytes that never change, wherever they are: a base disk, the file of a frozen differencing disk, one of these on another host, or one that is on its way.
 * Whoever reads asks for ranges inside `sizeBytes` only.
 */
export interface BlockSource {
  readonly sizeBytes: number;
  /**
   * Exactly these bytes. Reads may be answered in any order.
   * @throws DiskError when they cannot be had.
   */
  read(offset: number, lengthBytes: number): Promise<Buffer>;
  /** What is known of a range: at least one extent, from `offset` on; together they may cover less than was asked for, and never more. */
  extents(offset: number, lengthBytes: number): Promise<BlockExtent[]>;
}

/** Cuts extents to a range's length and puts equal neighbours together; a list that comes to nothing stays what it was, one of data. */
export function cutExtents(found: Iterable<BlockExtent>, lengthBytes: number, atMost: number): BlockExtent[] {
  const extents: BlockExtent[] = [];
  let left = lengthBytes;
  for (const { lengthBytes: length, hole } of found) {
    const cut = Math.min(length, left);
    if (cut === 0) continue;
    const last = extents.at(-1);
    if (last?.hole === hole) last.lengthBytes += cut;
    else if (extents.length === atMost) break;
    else extents.push({ lengthBytes: cut, hole });
    left -= cut;
    if (left === 0) break;
  }
  return extents;
}

/** An answer of one piece: `hole` where it is known to hold nothing but zeros. */
export function oneOf(lengthBytes: number, hole: boolean): Promise<BlockExtent[]> {
  return Promise.resolve([{ lengthBytes, hole }]);
}
