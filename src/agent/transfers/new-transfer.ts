import { randomBytes } from "node:crypto";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";
import { RecordFile, type ParentRecord } from "./transfer-record.js";

const TOKEN_BYTES = 24;

/** The record of a new transfer, with a number and a token of its own, in the guest's memory directory. */
export function newParentRecord(
  services: Services,
  guest: Guest,
  wanted: Omit<
    ParentRecord,
    "version" | "side" | "transfer" | "token" | "step" | "peerGuest" | "startedAtMs"
  >,
): RecordFile<ParentRecord> {
  return RecordFile.create<ParentRecord>(services.paths.guestMemory(guest.id), {
    ...wanted,
    version: 1,
    side: "parent",
    transfer: newTransferNumber(services),
    token: randomBytes(TOKEN_BYTES).toString("base64url"),
    step: "preparing",
    peerGuest: guest.name,
    startedAtMs: services.clock.wallMs(),
  });
}

/** A number no other transfer of this agent has, and hardly one of any other. */
export function newTransferNumber(services: Services): number {
  for (;;) {
    const number = randomBytes(4).readUInt32BE();
    if (number !== 0 && !services.routes.has(number)) return number;
  }
}
