import type { z } from "zod";
import { AGENT_METHODS } from "./schema/agent.js";
import { BLOCK_METHODS } from "./schema/blocks.js";
import { DISK_METHODS } from "./schema/disk.js";
import { EMULATOR_METHODS } from "./schema/emulator.js";
import { EXCHANGE_METHODS } from "./schema/exchange.js";
import { GUEST_METHODS } from "./schema/guest.js";
import { IMAGE_METHODS } from "./schema/image.js";
import { PEER_METHODS } from "./schema/peer.js";
import { TRANSFER_METHODS } from "./schema/transfer.js";

/** Version of the commands and events, negotiated by the handshake of the connection they travel on. */
export const API_VERSION = 1;

/** Who may call a method: a person's or a manager's tool, or another agent. */
export type Role = "client" | "peer";

/** Every method, with the schema of its parameters and of its result. */
export const METHODS = {
  ...AGENT_METHODS,
  ...GUEST_METHODS,
  ...EMULATOR_METHODS,
  ...EXCHANGE_METHODS,
  ...IMAGE_METHODS,
  ...BLOCK_METHODS,
  ...DISK_METHODS,
  ...TRANSFER_METHODS,
  ...PEER_METHODS,
} as const;

export type MethodName = keyof typeof METHODS;
export type MethodOf<R extends Role> = {
  [Name in MethodName]: (typeof METHODS)[Name]["role"] extends R ? Name : never;
}[MethodName];

/** What a caller passes: fields with a default may be left out. */
export type ParamsInput<Name extends MethodName> = z.input<(typeof METHODS)[Name]["params"]>;
/** What a handler is given: defaults filled in, forwards parsed. */
export type Params<Name extends MethodName> = z.output<(typeof METHODS)[Name]["params"]>;
export type Result<Name extends MethodName> = z.output<(typeof METHODS)[Name]["result"]>;

/** Whether a text is the name of a method. */
export function isMethod(name: string): name is MethodName {
  return Object.hasOwn(METHODS, name);
}
