import type { BlockFrame, Encoding, Frame, Origin } from "../../src/wire/index.js";
import type { VectorBytes } from "./bytes.js";

/** A frame as the vectors write it. */
export type VectorFrame =
  | {
      kind: "pages";
      runs: {
        firstPage: number;
        pageCount: number;
        encoding: Encoding;
        origin: Origin;
        content: VectorBytes;
      }[];
    }
  | { kind: "hashes"; firstPage: number; digests: VectorBytes }
  | Exclude<Frame, { kind: "pages" } | { kind: "hashes" }>;

export interface FrameVector {
  name: string;
  transfer: number;
  sequence: number;
  pageCount: number;
  encode: boolean;
  frame: VectorFrame;
  bytes: VectorBytes;
}

export interface RefusedVector {
  name: string;
  transfer: number;
  sequence: number;
  pageCount: number;
  bytes: VectorBytes;
  error: string;
}

export interface HandshakeVector {
  name: string;
  /** Hexadecimal, as all bytes here; empty: neither side has a key. */
  key: string;
  hello: { purpose: string; role: string; transfer?: number; epoch?: number; token?: string };
  helloBytes: string;
  challenge: { version: number; features: string[]; nonce: string };
  clientNonce: string;
  serverProof: string;
  clientProof: string;
}

export interface EndVector {
  end: { code: string; message: string; fatal: boolean };
  closeCode: number;
  reason: string;
  /** What the other side reads, when the message had to be cut. */
  read?: string;
}

export interface DiskVector {
  name: string;
  sizeBytes: number;
  /** What is not zero of it, and lies nowhere twice. */
  data: { offset: number; bytes: VectorBytes }[];
  /** Digests of the chunks that are not zero. */
  chunks: { index: number; digest: string }[];
  digest: string;
}

/** A frame of a block lane as the vectors write it: content by what it holds. */
export type VectorBlockFrame =
  | { kind: "content"; request: number; encodings: Encoding[]; content: VectorBytes }
  | Exclude<BlockFrame, { kind: "content" }>;

export interface BlockVector {
  name: string;
  transfer: number;
  sequence: number;
  /** Bytes of each disk of the grant. */
  sizes: number[];
  encode: boolean;
  frame: VectorBlockFrame;
  bytes: VectorBytes;
}

export interface BlockRefusedVector {
  name: string;
  transfer: number;
  sequence: number;
  sizes: number[];
  bytes: VectorBytes;
  error: string;
}
