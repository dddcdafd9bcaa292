import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** The checkout's directory. */
export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** What is not ours or not kept. */
const SKIPPED = new Set([".git", "node_modules", "dist", "build"]);

/** Paths, relative to the checkout, of all files below `directory` ("" for everything), in order. */
export function filesBelow(directory: string): string[] {
  const found: string[] = [];
  for (const entry of readdirSync(join(ROOT, directory), { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) {
      if (!SKIPPED.has(entry.name)) found.push(...filesBelow(path));
    } else if (entry.isFile()) {
      found.push(path);
    }
  }
  return found.sort();
}

export function read(path: string): string {
  return readFileSync(join(ROOT, path), "utf8");
}

/** Whether a file is text of ours: sources, scripts, documents; not images or other binary data, such as inputs kept by the fuzzer. */
export function isText(path: string): boolean {
  if (path.endsWith(".bin")) return false;
  return !readFileSync(join(ROOT, path)).subarray(0, 8192).includes(0);
}

/** Shell scripts, by their first line or, for the parts that others source, by name. */
export function shellScripts(): string[] {
  return [...filesBelow("scripts"), ...filesBelow(".ci")].filter(
    (path) => path.endsWith(".sh") || /^#!.*\b(?:ba|da)?sh\b/.test(read(path).split("\n", 1)[0] as string),
  );
}

/** One message from many findings; empty when there are none. */
export function report(findings: readonly string[]): string {
  return findings.map((finding) => `\n  ${finding}`).join("");
}
