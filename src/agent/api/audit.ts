import { codeOf, messageOf, type Clock } from "../../base/index.js";
import type { AnsweredCall, AuditEntry } from "../../control/index.js";

/** Methods that only look, or come in streams: not worth a line each time, unless somebody calls them who may not. */
const QUIET =
  /^(agent\.(info|audit)|disk\.(list|chain|loans)|emulator\.list|events\.subscribe|exchange\.show|guest\.(list|show|logs|console\.(input|close))|image\.(list|show|stored)|transfer\.(list|show)|peer\.(list|ping|info|findImage|closeBlocks|show|putFile|lacks|ahead))$/;

/** What is not written down: secrets, and texts that may hold some. */
const UNSAID = new Set(["token", "append"]);

const MAX_PARAMS_CHARACTERS = 2048;
const MAX_PROBLEM_CHARACTERS = 512;

/** Whether a command leaves a line behind. */
export function isAudited({ method, error }: AnsweredCall): boolean {
  return !QUIET.test(method) || codeOf(error) === "forbidden";
}

/** The line a command leaves behind. */
export function auditEntry(call: AnsweredCall, about: { clock: Clock; remote: string }): AuditEntry {
  const { identity, role, method, error, tookUs } = call;
  return {
    at: new Date(about.clock.wallMs()).toISOString(),
    who: identity.name.slice(0, 1024),
    shown: identity.kind,
    from: about.remote.slice(0, 255),
    role,
    method,
    params: JSON.stringify(withoutBytes(call.params), withoutSecrets).slice(0, MAX_PARAMS_CHARACTERS),
    outcome: error === undefined ? "done" : codeOf(error).slice(0, 64),
    ...(error === undefined ? {} : { problem: messageOf(error).slice(0, MAX_PROBLEM_CHARACTERS) }),
    tookMs: tookUs / 1000,
  };
}

/** A device state is one of the parameters themselves: writing it as an array of numbers first, as JSON would, takes a millisecond. */
function withoutBytes(params: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const entries = Object.entries(params);
  return Object.fromEntries(
    entries.map(([name, value]) => [name, value instanceof Uint8Array ? `${value.length} bytes` : value]),
  );
}

/** Looks at what holds the value: a Buffer has made an array of a number for each byte of itself by the time its value is given. */
function withoutSecrets(this: Record<string, unknown>, name: string, value: unknown): unknown {
  if (UNSAID.has(name)) return "…";
  const before = this[name];
  return before instanceof Uint8Array ? `${before.length} bytes` : value;
}
