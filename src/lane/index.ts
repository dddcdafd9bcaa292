export { parseAddress, type Address } from "./address.js";
export type { Connection, ConnectionHandlers } from "./connection.js";
export { dial, type DialOptions } from "./dial.js";
export type { ConnectionEnd } from "./end.js";
export { LaneError, type LaneErrorCode } from "./errors.js";
export type { Hello, HelloFields } from "./handshake.js";
export { Listener, type ListenerOptions } from "./listener.js";
export { PURPOSES, ROLES, type Purpose, type Role } from "./purpose.js";
