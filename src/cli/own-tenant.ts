import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { tenantOf } from "../lane/index.js";

/** The tenant that the holder of a certificate belongs to; undefined for none, and for a file that is no good: dialling the agent says what is wrong with it. */
export function tenantOfFile(path: string): string | undefined {
  try {
    return tenantOf(new X509Certificate(readFileSync(path)));
  } catch {
    return undefined;
  }
}
