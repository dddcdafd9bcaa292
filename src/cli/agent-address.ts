import { CliError } from "./errors.js";

/** The agent of this machine, as `rametd` and its systemd unit set it up. */
export const DEFAULT_AGENT = "unix:/run/ramet/rametd.sock";

/** Where an agent listens. */
export interface AgentAddress {
  /** As `dial` takes it: `unix:/path`, `wss://host:port` or `ws://host:port`. */
  url: string;
  /** What is shown there: nothing at a socket of this machine, a certificate, or the key of a plain connection. */
  shown: "nothing" | "certificate" | "key";
}

/**
 * Reads `unix:/path`, `/path`, `wss://host:port`, `host:port` (which is the same) or `ws://host:port`; IPv6 addresses in brackets.
 * @throws CliError `usage`.
 */
export function parseAgentAddress(text: string): AgentAddress {
  const path = text.startsWith("unix:") ? text.slice("unix:".length) : text;
  if (path.startsWith("/")) return { url: `unix:${path}`, shown: "nothing" };
  const [, scheme = "wss://", authority = ""] = /^(wss?:\/\/)?(.*?)\/?$/s.exec(text) ?? [];
  const match = /^(\[[0-9a-fA-F:.]+\]|[^\s:/[\]@?#]+):([0-9]{1,5})$/.exec(authority);
  const port = Number(match?.[2]);
  if (match && port >= 1 && port <= 65535)
    return { url: `${scheme}${authority}`, shown: scheme === "ws://" ? "key" : "certificate" };
  throw new CliError("usage", `the agent address ${JSON.stringify(text)} cannot be read`, {
    hint: "give unix:/path/to/socket, host:port or wss://host:port with --agent or in RAMET_AGENT",
  });
}
