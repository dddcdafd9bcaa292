import { z } from "zod";
import { MAX_LOG_LINES, MAX_LOG_LINE_CHARACTERS } from "../limits.js";
import { count, guestName, message, optional, u32 } from "./common.js";
import { diskWork } from "./disk.js";
import { consoleBytes, guestView } from "./guest.js";
import { imageWork } from "./image.js";
import { childReport } from "./peer.js";
import { transferView } from "./transfer.js";

/** Everything an agent says without being asked. Clients ignore events they do not know. */
export const EVENTS = {
  /** A guest appeared, changed or is gone. Needs the topic `guest`. */
  guest: z.object({ change: z.enum(["added", "changed", "removed"]), guest: guestView }),
  /** A transfer changed its phase, or made progress (about five times a second). Needs the topic `transfer`. */
  transfer: z.object({ transfer: transferView }),
  /** Output of a console this connection has open; `end` says why it was the last. */
  console: z.object({ console: u32, data: consoleBytes, end: optional(message) }),
  /** Later lines of a log this connection follows. */
  log: z.object({
    guest: guestName,
    lines: z.array(z.string().max(MAX_LOG_LINE_CHARACTERS)).max(MAX_LOG_LINES),
  }),
  /** How far an import or a check of an image is that this connection began with this number. */
  image: imageWork,
  /** How far a disk is that this connection has flattened or committed with this number. */
  disk: diskWork,
  /** To a peer: a transfer it commands changed on the child's side. */
  peerTransfer: childReport,
  /** So many events were dropped because this connection did not read; ask for what matters again. */
  lagged: z.object({ dropped: count }),
} as const;

export type EventName = keyof typeof EVENTS;
export type EventData<Name extends EventName> = z.output<(typeof EVENTS)[Name]>;

/** Any event, told apart by its name. */
export type AnyEvent = { [Name in EventName]: { event: Name; data: EventData<Name> } }[EventName];
