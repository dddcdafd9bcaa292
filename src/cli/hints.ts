import { codeOf } from "../base/index.js";
import { CliError } from "./errors.js";

const HINTS: { [code: string]: string } = {
  "bad-params": "ramet help COMMAND shows what it takes",
  "bad-state": "ramet show NAME tells the state it is in",
  busy: "try again in a moment",
  closed: "the agent may have been restarted; guests run on, and ramet list shows them",
  deadline: "ramet list and ramet transfers show what became of it",
  draining: "the agent is about to end; try again when it is back",
  forbidden:
    "have a certificate with that role issued (ramet pki issue YOU --renew --role ROLE), or ask somebody who has it",
  internal: "this is a fault of the agent; its log has the details (journalctl -u rametd)",
  "name-taken": "choose another name, or remove what has it",
  "no-memory": "remove a guest, or give this one less memory",
  "no-room":
    "remove a guest, give this one less memory, or delete images nobody uses: ramet image prune --unused-for TIME",
  "no-such-guest": "ramet list shows the guests of this agent",
  "no-such-peer": "ramet peers shows the peers this agent knows; host:port names any other",
  "no-such-transfer": "ramet transfers shows the transfers of this agent",
  "not-found": "ramet list shows the guests of this agent, ramet transfers its transfers",
  "port-taken": "choose another host port with --forward",
  "too-many-guests": "remove a guest, or raise limits.maxGuests of the agent",
  "unknown-method": "the agent is older than this command; ramet version shows both",
  usage: "ramet --help lists the commands",
};

/** What the user can do next, where that is known. */
export function hintFor(thrown: unknown): string | undefined {
  if (thrown instanceof CliError && thrown.hint !== undefined) return thrown.hint;
  const code = codeOf(thrown);
  return Object.hasOwn(HINTS, code) ? HINTS[code] : undefined;
}
