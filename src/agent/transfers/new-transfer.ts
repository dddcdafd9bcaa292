import { randomBytes } from "node:crypto";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";
import type { SpareTransfer } from "./spare-lanes.js";
import { RecordFile, type ParentRecord } from "./transfer-record.js";

const TOKEN_BYTES = 24;

/** The record of a new transfer, with a number and a token of its own or those of a spare one, in the guest's memory directory. */
export function newParentRecord(
  services: Services,
  guest: Guest,
  wanted: Omit<
    ParentRecord,
    "version" | "side" | "transfer" | "token" | "step" | "peerGuest" | "startedAtMs" | "holder"
  >,
  spare?: SpareTransfer,
): RecordFile<ParentRecord> {
  return RecordFile.create<ParentRecord>(services.paths.guestMemory(guest.id), {
    ...wanted,
    version: 1,
    side: "parent",
    ...(spare === undefined
      ? newIdentity(services)
      : { transfer: spare.transfer, token: spare.token, holder: spare.agreedWith }),
    step: "preparing",
    peerGuest: guest.name,
    startedAtMs: services.clock.wallMs(),
  });
}

/** What a transfer and whoever dials for it are known by. */
export function newIdentity(services: Pick<Services, "routes">): { transfer: number; token: string } {
  return {
    transfer: newTransferNumber(services),
    token: randomBytes(TOKEN_BYTES).toString("base64url"),
  };
}

/** A number no other transfer of this agent has, and hardly one of any other. */
export function newTransferNumber(services: Pick<Services, "routes">): number {
  for (;;) {
    const number = randomBytes(4).readUInt32BE();
    if (number !== 0 && !services.routes.has(number)) return number;
  }
}
