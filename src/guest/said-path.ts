import { statSync } from "node:fs";
import { basename, dirname } from "node:path";

/**
 * A file's path as an emulator is told it: its bare name where the emulator works in its directory, for each byte of a command costs it some 5 µs. Those that were
 * started by earlier versions work elsewhere.
 */
export function saidPath(pid: number, path: string): string {
  try {
    const works = statSync(`/proc/${pid}/cwd`);
    const lies = statSync(dirname(path));
    return works.dev === lies.dev && works.ino === lies.ino ? basename(path) : path;
  } catch {
    return path;
  }
}
