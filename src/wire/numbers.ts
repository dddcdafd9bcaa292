/** The protocol's written numbers. They never change their meaning; zero is never valid. See proto/PROTOCOL.md. */

/** Version of the page protocol, agreed in the handshake. */
export const PROTOCOL_VERSION = 1;

/** Byte 0 of a frame. The vectors of version 1 hold 7 for unknown, so it stays so. */
export const FRAME_KIND = {
  pages: 1,
  request: 2,
  received: 3,
  have: 4,
  hashes: 5,
  done: 6,
  relayed: 8,
} as const;

/** How the data of a run of pages is written. */
export const ENCODING = { raw: 1, lz4: 2, zero: 3 } as const;

/** Why a run of pages was sent: a child waited for it, the parent was about to write it, or it was its turn. */
export const ORIGIN = { fault: 1, push: 2, sweep: 3 } as const;

/** Bit of the flags of a `have` frame: no more of them follow. */
export const HAVE_LAST_FLAG = 1;

/** Bit of the flags of a `relayed` frame: from here on, until one without it. */
export const RELAYED_ON_FLAG = 1;

export type FrameKind = keyof typeof FRAME_KIND;
export type Encoding = keyof typeof ENCODING;
export type Origin = keyof typeof ORIGIN;

const ENCODING_NAMES: readonly (Encoding | undefined)[] = namesOf(ENCODING);
const ORIGIN_NAMES: readonly (Origin | undefined)[] = namesOf(ORIGIN);
const KIND_NAMES: readonly (FrameKind | undefined)[] = namesOf(FRAME_KIND);

/** The name behind a number on the wire; undefined when this version knows none. */
export function encodingOf(value: number): Encoding | undefined {
  return ENCODING_NAMES[value];
}

/** As `encodingOf`. */
export function originOf(value: number): Origin | undefined {
  return ORIGIN_NAMES[value];
}

/** As `encodingOf`. */
export function kindOf(value: number): FrameKind | undefined {
  return KIND_NAMES[value];
}

function namesOf<Name extends string>(numbers: Record<Name, number>): (Name | undefined)[] {
  const names: (Name | undefined)[] = [];
  for (const name in numbers) names[numbers[name]] = name;
  return names;
}
