import type { Content } from "./content-digest.js";

/** How far an import is: the phases follow each other in this order; only a raw file is done after the first. */
export interface ImportProgress {
  readonly phase: "copy" | "convert" | "digest";
  readonly doneBytes: number;
  readonly sizeBytes: number;
}

/** Must not throw. */
export type OnImportProgress = (progress: ImportProgress) => void;

/** An image as one tenant has it. Who else has the same bytes is not seen here. */
export interface ImageView {
  /** What the tenant calls it; undefined when it was imported without a name. */
  readonly identifier: string | undefined;
  /** Of what a guest reads from it, whatever it was imported from: 64 hexadecimal digits. */
  readonly digest: string;
  readonly sizeBytes: number;
  readonly tenant: string;
  /** Since when the tenant has it, in milliseconds since 1970. */
  readonly sinceMs: number;
  /** Whether chains of the tenant's use it, on any host. */
  readonly isUsed: boolean;
  /** What a check found wrong with it; undefined when none did. */
  readonly problem: string | undefined;
}

/** An image as whoever runs the host has it: its bytes, with all who have or use them. */
export interface StoredImage {
  readonly digest: string;
  readonly sizeBytes: number;
  /** What its file takes. */
  readonly allocatedBytes: number;
  /** The directory of images it lies in. */
  readonly directory: string;
  /** None where it was only brought for a chain, or all who had it removed it. */
  readonly owners: readonly { tenant: string; identifier: string | undefined }[];
  /** Tenants with chains over it, on any host. */
  readonly usedBy: readonly string[];
  /** Other hosts that use it. */
  readonly otherHosts: readonly string[];
  /** When it was last used or, if it never was, came, in milliseconds since 1970. */
  readonly lastUsedMs: number;
  readonly problem: string | undefined;
}

/** Keeps an image's bytes from being removed, on this host and on those that share the directory. */
export interface HeldImage {
  readonly digest: string;
  /** Of the raw, sparse, read-only file. */
  readonly path: string;
  readonly sizeBytes: number;
  /** While it comes: where it is read, and where its file lies until it is at `path`. */
  readonly arriving?: { readonly socket: string; readonly file: string } | undefined;
  /** May be called twice. */
  letGo(): void;
}

export interface HoldOptions {
  evenDamaged?: boolean;
}

export interface ImportOptions {
  tenant: string;
  identifier?: string | undefined;
  /** What the file is; without it, what its first bytes say. */
  format?: "raw" | "qcow2" | undefined;
  onProgress?: OnImportProgress | undefined;
  signal?: AbortSignal | undefined;
}

/** A disk on its way into the store that did not come from a file of this host, such as from a peer. */
export interface UnfinishedImage {
  /** An empty file, to be given its size and content by whoever began it, in the directory that it becomes part of. */
  readonly path: string;
  /**
   * Makes it an image, synced and read-only, in one step; when the image is here by now, this one is dropped. What `content` says is what was found by
   * digesting the file, not what somebody announced. The image is held for a chain of the tenant's, for otherwise it could be pruned at once.
   */
  publish(content: Content, tenant?: string): Promise<HeldImage>;
  /** Removes it. Does nothing after `publish`; may be called twice. */
  drop(): Promise<void>;
}

/** Base disks of a host: what the rest of this room and the agent build on. */
export interface Images {
  /** @throws DiskError `bad-image`, `refers-outside`, `encrypted`, `bad-name`, `name-taken`, `no-room`, `cancelled`, … */
  import(path: string, options: ImportOptions): Promise<ImageView>;
  /**
   * Lets a tenant have an image whose bytes are here, as if it had imported them: for agents, which have seen to it that it may.
   * @throws DiskError `no-such-image`, `name-taken`, `bad-name`.
   */
  assign(digest: string, as: { tenant: string; identifier?: string | undefined }): Promise<ImageView>;
  /** What a tenant has, by identifier and then by digest. */
  list(tenant: string): Promise<ImageView[]>;
  /** @param reference an identifier, a digest, or at least 8 of its first digits. @throws DiskError `no-such-image`, `ambiguous`. */
  find(reference: string, tenant: string): Promise<ImageView>;
  /** Whether the bytes are on this host, or on a directory it shares, whoever has them. For agents, never to answer a tenant. */
  has(digest: string): Promise<boolean>;
  /**
   * Keeps the bytes, whoever has them, for a tenant's chain. That it is used lasts on the disk until it is let go: whoever stops, and still has chains, does not let go.
   * @param how `evenDamaged` for a chain that stands on it already: that keeps what it has, whatever a check has found.
   * @throws DiskError `no-such-image`, `damaged`.
   */
  hold(digest: string, tenant?: string, how?: HoldOptions): Promise<HeldImage>;
  /** Begins an image that comes from elsewhere. A crash leaves nothing of it. */
  begin(): Promise<UnfinishedImage>;
  /**
   * As `begin`, with a directory that is there, on the same file system as the images, and has a `disk.raw`: what has been filled over more than one
   * life of the agent. The directory becomes the image; nothing else may be in it. `drop` removes it.
   */
  adopt(directory: string): UnfinishedImage;
}
