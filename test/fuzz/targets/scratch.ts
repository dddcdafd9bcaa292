import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { scratchRoot } from "../engine/scratch-root.js";

let directory: string | undefined;

/** A directory of this process for files that decoders read; removed when the process ends by itself. */
export function scratchDirectory(): string {
  if (directory !== undefined) return directory;
  const made = mkdtempSync(join(scratchRoot(), "ramet-fuzz."));
  process.on("exit", () => rmSync(made, { recursive: true, force: true }));
  return (directory = made);
}
