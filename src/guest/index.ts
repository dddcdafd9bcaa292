export { checkHost, networkSchema, parseForward, parseGuestConfig } from "./config.js";
export type { Architecture, Forward, GuestConfig, Network } from "./config.js";
export type {
  Console,
  Emulator,
  EmulatorExit,
  EmulatorStatus,
  GuestEvent,
  SavedDeviceState,
  Snapshot,
} from "./emulator.js";
export { diskSchema, isUnderWay, nodeOf, topNodeOf } from "./disks.js";
export type { DiskFreeze, DiskLayer, GuestDisk } from "./disks.js";
export type { ChainJobState } from "./chain-jobs.js";
export { EmulatorDisks } from "./emulator-disks.js";
export { confinedCommand, prepareRoot } from "./confinement.js";
export type { Confinement, Place } from "./confinement.js";
export { HeldSaves } from "./held-save.js";
export type { InPause, MakeStatePipe, StatePipe } from "./held-save.js";
export { GuestError } from "./errors.js";
export type { GuestErrorCode } from "./errors.js";
export { layoutOf, otherSeat, SEATS } from "./layout.js";
export type { Layout, Seat } from "./layout.js";
export * from "./limits.js";
export { tailOf } from "./logs.js";
export { compareVersions, defaultMachine, findEmulator, probeEmulator } from "./probe.js";
export type { EmulatorProbe } from "./probe.js";
export { adoptEmulator, endLeftover, locateEmulator, startEmulator } from "./start.js";
export type { EmulatorPlace, StartOptions } from "./start.js";
