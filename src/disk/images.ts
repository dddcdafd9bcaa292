import type { Content, OnProgress } from "./content-digest.js";

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
}

/** Keeps an image's bytes from being removed, on this host and on those that share the directory. */
export interface HeldImage {
  readonly digest: string;
  /** Of the raw, sparse, read-only file. */
  readonly path: string;
  readonly sizeBytes: number;
  /** May be called twice. */
  letGo(): void;
}

export interface ImportOptions {
  tenant: string;
  identifier?: string | undefined;
  /** What the file is; without it, what its first bytes say. */
  format?: "raw" | "qcow2" | undefined;
  onProgress?: OnProgress | undefined;
  signal?: AbortSignal | undefined;
}

/** A disk on its way into the store that did not come from a file of this host, such as from a peer. */
export interface UnfinishedImage {
  /** An empty file, to be given its size and content by whoever began it, in the directory that it becomes part of. */
  readonly path: string;
  /**
   * Makes it an image, synced and read-only, in one step; when the image is here by now, this one is dropped. What `content` says is what was found by
   * digesting the file, not what somebody announced. The image is held for the caller, for otherwise it could be pruned at once.
   */
  publish(content: Content): Promise<HeldImage>;
  /** Removes it. Does nothing after `publish`; may be called twice. */
  drop(): Promise<void>;
}

/** Base disks of a host: what the rest of this room and the agent build on. */
export interface Images {
  /** @throws DiskError `bad-image`, `refers-outside`, `encrypted`, `bad-name`, `name-taken`, `no-room`, `cancelled`, … */
  import(path: string, options: ImportOptions): Promise<ImageView>;
  /** What a tenant has, by identifier and then by digest. */
  list(tenant: string): Promise<ImageView[]>;
  /** @param reference an identifier, a digest, or at least 8 of its first digits. @throws DiskError `no-such-image`, `ambiguous`. */
  find(reference: string, tenant: string): Promise<ImageView>;
  /** Whether the bytes are on this host, or on a directory it shares, whoever has them. For agents, never to answer a tenant. */
  has(digest: string): Promise<boolean>;
  /** Keeps the bytes, whoever has them. @throws DiskError `no-such-image`, `damaged`. */
  hold(digest: string): Promise<HeldImage>;
  /** Begins an image that comes from elsewhere. A crash leaves nothing of it. */
  begin(): Promise<UnfinishedImage>;
}
