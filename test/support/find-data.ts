import { fstatSync, readSync } from "node:fs";
import type { FindData } from "../../src/disk/index.js";

const STEP = 4096;
const ZEROS = Buffer.alloc(STEP);

/** Finds data by looking at it: for tests that do without the addon. */
export const findDataByReading: FindData = (fd, offset) => {
  const { size } = fstatSync(fd);
  const block = Buffer.alloc(STEP);
  let start: number | undefined;
  for (let at = offset; at < size;) {
    const next = Math.min((Math.floor(at / STEP) + 1) * STEP, size);
    const length = readSync(fd, block, 0, next - at, at);
    const zero = block.compare(ZEROS, 0, length, 0, length) === 0;
    if (!zero) start ??= at;
    else if (start !== undefined) return { start, end: at };
    at = next;
  }
  return start === undefined ? undefined : { start, end: size };
};
