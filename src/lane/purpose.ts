import { MAX_CONTROL_BYTES } from "../base/index.js";
import { MAX_LANE_MESSAGE_BYTES } from "./limits.js";

/** The WebSocket subprotocol of every connection. */
export const SUBPROTOCOL = "ramet.v1";

/**
 * What a connection is for: commands, one of a transfer's two page lanes, its memory copied ahead, what another child passes on, or blocks of disks, those
 * somebody waits for apart from the rest.
 */
export const PURPOSES = [
  "control",
  "urgent",
  "bulk",
  "precopy",
  "relay",
  "block-urgent",
  "block-bulk",
] as const;
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
const URGENT: Route = { path: "/v1/urgent", maxMessageBytes: MAX_LANE_MESSAGE_BYTES };

/** Every route of a listener. */
export const ROUTES: readonly Route[] = [CONTROL, LANE, URGENT];

/** The protocols an urgent lane is dialled with (ALPN, RFC 7301): the first says in the clear what it is, the second what is spoken. */
export const URGENT_PROTOCOLS = ["ramet-urgent", "http/1.1"] as const;

/** What a request for an urgent lane begins with, where it is not encrypted. */
export const URGENT_REQUEST = `GET ${URGENT.path} HTTP/1.1\r\n`;

/** The route a purpose is dialled at. */
export function routeOf(purpose: Purpose): Route {
  if (purpose === "urgent") return URGENT;
  return purpose === "control" ? CONTROL : LANE;
}

/** Whether a purpose has its place on a route: an urgent lane may be dialled like any other. */
export function fitsRoute(purpose: Purpose, route: Route): boolean {
  return route === routeOf(purpose) || (purpose === "urgent" && route === LANE);
}
