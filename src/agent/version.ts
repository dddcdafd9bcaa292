import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The version in package.json, found from this file upwards: it runs from src/ and from dist/. */
function findVersion(): string {
  for (
    let directory = dirname(fileURLToPath(import.meta.url));
    directory !== dirname(directory);
    directory = dirname(directory)
  ) {
    try {
      const { name, version } = JSON.parse(readFileSync(join(directory, "package.json"), "utf8")) as Record<
        string,
        unknown
      >;
      if (name === "ramet" && typeof version === "string") return version;
    } catch {
      // Not in this directory.
    }
  }
  return "unknown";
}

/** Version of this agent. */
export const AGENT_VERSION = findVersion();
