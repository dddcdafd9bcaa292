import { MAX_CONTROL_BYTES } from "../base/index.js";
import { MAX_LANE_MESSAGE_BYTES } from "./limits.js";

/** The WebSocket subprotocol of every connection. */
export const SUBPROTOCOL = "ramet.v1";

/** What a connection is for: commands, one of a transfer's two page lanes, its memory copied ahead, or what another child passes on. */
export const PURPOSES = ["control", "urgent", "bulk", "precopy", "relay"] as const;
export type Purpose = (typeof PURPOSES)[number];

/** Who dials: a person's or a manager's tool, or another agent. */
export const ROLES = ["client", "peer"] as const;
export type Role = (typeof ROLES)[number];

/** Where a listener expects a purpose, and how long its messages may be. */
export interface Route {
  path: string;
  maxMessageBytes: number;
}

const CONTROL: Route = { path: "/v1/control", maxMessageBytes: MAX_CONTROL_BYTES };
const LANE: Route = { path: "/v1/lane", maxMessageBytes: MAX_LANE_MESSAGE_BYTES };

/** Every route of a listener. */
export const ROUTES: readonly Route[] = [CONTROL, LANE];

/** The route of a purpose. */
export function routeOf(purpose: Purpose): Route {
  return purpose === "control" ? CONTROL : LANE;
}
