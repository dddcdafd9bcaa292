import { dirname, join } from "node:path";
import type { Identity } from "../../base/index.js";
import type { Params, Result } from "../../control/index.js";
import { FileSource, type HeldImage, type ImageStore } from "../../disk/index.js";
import { findData } from "../../memory/index.js";
import type { BlockGrants } from "./block-grants.js";

/** The digests of an image's chunks, beside its bytes. */
const CHUNKS = "chunks";

/** Gives other hosts images of this one's: what a tenant has here it may have there. */
export class ImageSupply {
  readonly #images: ImageStore;
  readonly #grants: BlockGrants;

  constructor({ images, grants }: { images: ImageStore; grants: BlockGrants }) {
    this.#images = images;
    this.#grants = grants;
  }

  /** @throws DiskError `no-such-image`, `ambiguous`. */
  async find({ reference, tenant }: Params<"peer.findImage">): Promise<Result<"peer.findImage">> {
    const { digest, sizeBytes, identifier } = await this.#images.find(reference, tenant);
    return { digest, sizeBytes, ...(identifier === undefined ? {} : { identifier }) };
  }

  /** Grants an image to whoever asks. @throws DiskError `no-such-image`, `damaged`; AgentError `busy`. */
  async open({ digest, tenant }: Params<"peer.openImage">, by: Identity): Promise<Result<"peer.openImage">> {
    await this.#images.find(digest, tenant);
    const held = await this.#images.hold(digest, tenant);
    const opened: FileSource[] = [];
    const letGo = (): void => closeAll(held, opened);
    try {
      opened.push(await FileSource.open(held.path, findData));
      opened.push(await FileSource.open(join(dirname(held.path), CHUNKS), findData));
      return this.#grants.open({ holder: by, disks: opened, onEnd: letGo });
    } catch (error) {
      letGo();
      throw error;
    }
  }
}

function closeAll(held: HeldImage, opened: readonly FileSource[]): void {
  held.letGo();
  for (const file of opened) void file.close();
}
