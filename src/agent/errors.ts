import { CodedError } from "../base/index.js";

/** What an agent refuses or could not do; listed with causes and cures in docs/agent.md. */
export type AgentErrorCode =
  | "bad-configuration"
  | "state-directory-locked"
  | "bad-request"
  | "no-such-guest"
  | "no-such-transfer"
  | "no-such-peer"
  | "no-such-emulator"
  | "name-taken"
  | "too-many-guests"
  | "no-room"
  | "no-isolation"
  | "busy"
  | "bad-state"
  | "has-run"
  | "bad-boot-file"
  | "bad-record"
  | "port-taken"
  | "network"
  | "refused"
  | "draining"
  | "not-ready"
  | "no-takeover"
  | "unconfirmed"
  | "timeout"
  | "transfer-failed"
  | "exchange-failed"
  | "suspend-failed"
  | "resume-failed"
  | "chain-failed"
  | "swap-failed"
  | "cancelled";

/** The agent's one error. */
export class AgentError extends CodedError<AgentErrorCode> {}
