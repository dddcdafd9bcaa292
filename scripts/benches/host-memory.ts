import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";

const CHUNK_MIB = 1;
const BYTES_PER_MIB = 1024 * 1024;

/**
 * Has so much of the host's free memory used once and given back. A hypervisor may have taken free pages away (free page reporting), and giving each back at its
 * first touch costs this host's processors several times what is done with it then: who is measured next would pay that or not, as it happens.
 * @param directory on tmpfs.
 */
export function touchFreeMemory(directory: string, mib: number): void {
  const path = join(directory, `touched-${process.pid}`);
  const content = Buffer.alloc(CHUNK_MIB * BYTES_PER_MIB, 1);
  const file = openSync(path, "w");
  try {
    for (let written = 0; written < mib; written += CHUNK_MIB) writeSync(file, content);
  } finally {
    closeSync(file);
    rmSync(path);
  }
}
