import { CliError } from "./errors.js";

/** The agent of this machine, as `rametd` and its systemd unit set it up. */
export const DEFAULT_AGENT = "unix:/run/ramet/rametd.sock";

/** Where an agent listens. */
export interface AgentAddress {
  /** As `dial` takes it: `unix:/path` or `ws://host:port`. */
  url: string;
  /** Whether it is on this machine, reached through its socket: no key is asked for then. */
  local: boolean;
}

/**
 * Reads `unix:/path`, `/path`, `ws://host:port` or `host:port`; IPv6 addresses in brackets.
 * @throws CliError `usage`.
 */
export function parseAgentAddress(text: string): AgentAddress {
  const path = text.startsWith("unix:") ? text.slice("unix:".length) : text;
  if (path.startsWith("/")) return { url: `unix:${path}`, local: true };
  const authority = text.startsWith("ws://") ? text.slice("ws://".length).replace(/\/$/, "") : text;
  const match = /^(\[[0-9a-fA-F:.]+\]|[^\s:/[\]@?#]+):([0-9]{1,5})$/.exec(authority);
  const port = Number(match?.[2]);
  if (match && port >= 1 && port <= 65535) return { url: `ws://${authority}`, local: false };
  throw new CliError("usage", `the agent address ${JSON.stringify(text)} cannot be read`, {
    hint: "give unix:/path/to/socket, host:port or ws://host:port with --agent or in RAMET_AGENT",
  });
}
