import { CodedError } from "../base/index.js";

/** What can be wrong with a guest or its emulator. Stable; listed in docs/errors.md. */
export type GuestErrorCode =
  | "bad-config" // the configuration breaks a rule, or names what cannot be forked safely
  | "missing-file" // a kernel, initrd or firmware file cannot be read
  | "not-installed" // the emulator for the architecture is not on this host
  | "unsupported-machine" // the emulator on this host does not know the machine type
  | "unsupported-memory" // the emulator has memory besides the guest's whose content cannot be carried
  | "start-failed" // the emulator ended or did not answer while it was starting
  | "gone" // the emulator has ended, or its control connection has
  | "timeout" // the emulator did not answer in time
  | "protocol" // the emulator answered something that is not QMP
  | "command-failed" // the emulator refused a command
  | "ran-on" // the guest ran on before its instant, because its device state had another size than before; nothing was lost but that try
  | "bad-device-state" // a device state that is not one, or of another machine type
  | "load-failed" // the emulator refused a device state
  | "network-failed" // a tap device could not be set up
  | "busy"; // the console is already attached

/** What a user, the machine or the emulator got wrong about a guest. */
export class GuestError extends CodedError<GuestErrorCode> {}
