/** How one kind of frame of a block lane is written and read. There is one of these per kind. */
export interface BlockCodec<Frame> {
  /** Bytes the body of this frame takes. */
  bodyBytes(frame: Frame): number;
  /** Writes the body; `into` has exactly `bodyBytes(frame)` bytes, of unknown content. */
  encode(frame: Frame, into: Buffer): void;
  /** Reads and checks a body of any length. Allocates nothing before the length it needs was found to be there. */
  decode(body: Buffer, context: BlockContext): Frame;
}

/** What a body's decoder may know besides the body. */
export interface BlockContext {
  flags: number;
  /** Bytes of each of the grant's disks; what is asked for must lie inside. Empty on the side that asks. */
  sizes: readonly number[];
}
