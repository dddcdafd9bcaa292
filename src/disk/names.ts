import { tenantProblem } from "../base/index.js";
import { DiskError } from "./errors.js";
import { MIN_DIGEST_DIGITS } from "./limits.js";

/** In lower case only: shared directories may lie on file systems that know no difference. */
const IDENTIFIER = /^[a-z0-9][a-z0-9._-]{0,62}$/;

const DIGEST = /^[0-9a-f]{64}$/;
const DIGEST_START = new RegExp(`^[0-9a-f]{${MIN_DIGEST_DIGITS},64}$`);

/** What a reference to an image may be taken for. */
export type Reference = { kind: "identifier"; identifier: string } | { kind: "digest"; start: string };

/** Whether a text is a whole digest. */
export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}

/** @throws DiskError `bad-name` */
export function requireDigest(text: string): void {
  if (!isDigest(text)) throw new DiskError("bad-name", `a digest is 64 hexadecimal digits, not "${text}"`);
}

/** What an image may be called. @throws DiskError `bad-name` */
export function requireIdentifier(text: string): void {
  if (!IDENTIFIER.test(text)) {
    throw new DiskError(
      "bad-name",
      `"${text}" cannot name an image: a name has 1 to 63 lower-case letters, digits, dots, dashes or underscores, and begins with a letter or digit`,
    );
  }
  if (!DIGEST_START.test(text)) return;
  throw new DiskError(
    "bad-name",
    `"${text}" cannot name an image: it could be taken for the start of a digest`,
  );
}

/** @throws DiskError `bad-name` */
export function requireTenantName(text: string): void {
  const problem = tenantProblem(text);
  if (problem !== undefined) throw new DiskError("bad-name", problem);
}

/** Says what a reference is: no identifier looks like the start of a digest. @throws DiskError `bad-name` when it is neither. */
export function parseReference(text: string): Reference {
  if (DIGEST_START.test(text)) return { kind: "digest", start: text };
  requireIdentifier(text);
  return { kind: "identifier", identifier: text };
}
