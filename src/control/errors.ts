import { CodedError } from "../base/index.js";

/**
 * - `bad-message`: not a control message at all; the connection ends.
 * - `too-large`: a message over the limit of its direction; the connection ends.
 * - `unknown-method`: this agent has no such method.
 * - `bad-params`: a parameter is missing, unknown or breaks its rule; the message names it.
 * - `forbidden`: the method is not for connections of this role.
 * - `busy`: too many requests of this connection are unanswered.
 * - `too-slow`: the client does not read what it asked for; the connection ends.
 * - `bad-answer`: the agent answered something its method's description does not allow.
 * - `closed`: the connection ended before the answer came.
 * - `internal`: the agent itself is wrong; its log has the details.
 */
export type ControlErrorCode =
  | "bad-message"
  | "too-large"
  | "unknown-method"
  | "bad-params"
  | "forbidden"
  | "busy"
  | "too-slow"
  | "bad-answer"
  | "closed"
  | "internal";

/** A request or message that the control room refused, or could not bring to its answer. */
export class ControlError extends CodedError<ControlErrorCode> {}

/** What the other side answered instead of a result: its stable code and its sentence. */
export class RemoteError extends CodedError {}
