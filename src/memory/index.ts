export { CopiesFile } from "./copies-file.js";
export { checkKernel, openUserfaultDevice, preloadEnvironment } from "./device.js";
export { MemoryError, type MemoryErrorCode } from "./errors.js";
export type { FillableRegion } from "./fillable.js";
export { GuestMemory } from "./guest-memory.js";
export { nativePaths } from "./native.js";
export { RamFile } from "./ram-file.js";
export type { TrackedRegion } from "./tracked.js";
export type { FaultMode } from "./userfault.js";
