import { codeOf } from "../base/index.js";

/** What a script can rely on; described in docs/cli.md. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  unreachable: 3,
  notFound: 4,
  refused: 5,
  timeout: 6,
  interrupted: 130,
  brokenPipe: 141,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

const BY_CODE: { [code: string]: ExitCode } = {
  usage: EXIT.usage,
  "bad-params": EXIT.usage,
  "bad-request": EXIT.usage,
  unreachable: EXIT.unreachable,
  closed: EXIT.unreachable,
  "too-slow": EXIT.unreachable,
  "not-found": EXIT.notFound,
  deadline: EXIT.timeout,
  timeout: EXIT.timeout,
  interrupted: EXIT.interrupted,
};

/** Codes with which an agent says: not now, not here, or not with that. Nothing was changed. */
const REFUSED = new Set([
  "already-switched",
  "ambiguous",
  "bad-boot-file",
  "bad-config",
  "bad-image",
  "bad-name",
  "bad-state",
  "busy",
  "conflict",
  "draining",
  "encrypted",
  "exists",
  "forbidden",
  "in-use",
  "missing-file",
  "name-taken",
  "no-memory",
  "no-room",
  "not-installed",
  "port-taken",
  "refused",
  "refers-outside",
  "too-many-guests",
  "unknown-method",
  "unsupported",
  "unsupported-machine",
  "unsupported-memory",
]);

/** The exit code for anything thrown. */
export function exitCodeOf(thrown: unknown): ExitCode {
  const code = codeOf(thrown);
  const known = Object.hasOwn(BY_CODE, code) ? BY_CODE[code] : undefined;
  if (known !== undefined) return known;
  if (code.startsWith("no-such-")) return EXIT.notFound;
  return REFUSED.has(code) ? EXIT.refused : EXIT.failed;
}
