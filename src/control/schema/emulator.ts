import { z } from "zod";
import { MAX_LISTED } from "../limits.js";
import { architecture, guestName, machineName, message, optional } from "./common.js";

/** Most emulators and machine types in one answer. */
const MAX_EMULATORS = 64;
const MAX_MACHINES = 256;

/** An emulator of a host, and who runs on it. */
export const installedEmulator = z.object({
  /** Absent for one whose file is not there any more while guests run on it, as after an upgrade. */
  path: optional(z.string().max(4095)),
  architecture,
  /** Guests of this architecture start on it. */
  isDefault: z.boolean(),
  /** Such as `7.2.22`; absent when it does not say. */
  version: optional(z.string().max(128)),
  /** The versioned machine types it knows, the oldest first. */
  machines: optional(z.array(machineName).max(MAX_MACHINES)),
  guests: z.array(guestName).max(MAX_LISTED),
  /** Why it cannot be used. */
  problem: optional(message),
});
export type InstalledEmulator = z.infer<typeof installedEmulator>;

export const EMULATOR_METHODS = {
  "emulator.list": {
    role: "client",
    params: z.strictObject({}),
    result: z.object({ emulators: z.array(installedEmulator).max(MAX_EMULATORS) }),
  },
} as const;
