/** Bytes from `start` to before `end`. */
export interface Extent {
  readonly start: number;
  readonly end: number;
}

/**
 * Finds what of a sparse file is no hole: the first such extent that ends after `offset`, cut to begin there; undefined when only a hole follows.
 * Node.js has no lseek(2), so whoever plugs this room in brings it.
 */
export type FindData = (fd: number, offset: number) => Extent | undefined;
