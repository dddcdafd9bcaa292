import { z } from "zod";
import { hostAddress, count, nothing, optional, sha256, u32, uuid } from "./common.js";
import { imageIdentifier, imageReference, imageView, tenantName } from "./image.js";

const token = z.string().regex(/^[A-Za-z0-9_-]{16,128}$/, "must be 16 to 128 characters of base64url");

/** Images from other hosts: see proto/BLOCKS.md for how their bytes come. */
export const BLOCK_METHODS = {
  /** Copies an image of another host's into this one's store; when its bytes are here already, nothing moves. What was begun goes on when the connection ends. */
  "image.pull": {
    role: "client",
    params: z.strictObject({
      reference: imageReference,
      from: hostAddress,
      tenant: optional(tenantName),
      /** What it is called here; without it, as there. */
      identifier: optional(imageIdentifier),
      /** With it, `image` events of this number come to the connection. */
      work: optional(u32),
    }),
    /** `wireBytes`: what came over the network for it. */
    result: z.object({ image: imageView, wireBytes: count }),
  },
  /** What a tenant's image is, where there is one. */
  "peer.findImage": {
    role: "peer",
    params: z.strictObject({ reference: imageReference, tenant: tenantName }),
    result: z.object({ digest: sha256, sizeBytes: count, identifier: optional(imageIdentifier) }),
  },
  /** A grant of an image: disk 0 is its bytes, disk 1 the digests of its chunks, 32 bytes each. */
  "peer.openImage": {
    role: "peer",
    params: z.strictObject({ digest: sha256, tenant: tenantName }),
    result: z.object({ grant: u32, token }),
  },
  /**
   * A grant of a frozen disk's file, for the child of a fork, which is asked for after its instant. The first time the transfer's token is shown; the disk then
   * stays for whoever has shown it until that returns it.
   */
  "peer.openLayer": {
    role: "peer",
    params: z.strictObject({ transfer: u32, disk: uuid, token: optional(token) }),
    result: z.object({ grant: u32, token, sizeBytes: count }),
  },
  "peer.returnLayer": {
    role: "peer",
    params: z.strictObject({ transfer: u32, disk: uuid }),
    result: nothing,
  },
  /** The reader has what it wanted; only its own grants are ended. */
  "peer.closeBlocks": { role: "peer", params: z.strictObject({ grant: u32 }), result: nothing },
} as const;
