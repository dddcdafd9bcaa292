import { isLoopback } from "../../lane/index.js";
import { type Configuration, formatAddress, hostOfUrl } from "./schema.js";

/** How the agent is reached over TCP: with certificates, with a pre-shared key on loopback, or not at all. */
export function transportOf(configuration: Configuration): "tls" | "plain" | "none" {
  if (configuration.tls !== undefined) return "tls";
  return configuration.plain ? "plain" : "none";
}

/** What is wrong with how the agent and its peers are to be reached, one line for each field. */
export function checkTransport(configuration: Configuration): string[] {
  const { tls, plain, keyFile, listen } = configuration;
  const problems: string[] = [];
  if (tls !== undefined && plain) problems.push("plain: must be left out where tls is set");
  if (plain && keyFile === undefined)
    problems.push(
      "keyFile: must name a pre-shared key where plain is set, for whoever reaches loopback could connect",
    );
  if (plain && !isLoopback(listen.host)) {
    problems.push(
      `listen: ${formatAddress(listen)} can be reached from other machines, and plain connections are for loopback only: ` +
        "set tls, or listen on 127.0.0.1",
    );
  }
  if (!plain && keyFile !== undefined) {
    problems.push(
      "keyFile: is for plain connections on loopback; set plain to say that they are wanted, or tls for connections from other machines",
    );
  }
  return [...problems, ...checkUrls(configuration)];
}

function checkUrls(configuration: Configuration): string[] {
  const { advertise, listen, peers } = configuration;
  const transport = transportOf(configuration);
  const problems: string[] = [];
  if (transport !== "none" && isWildcard(listen.host) && advertise === undefined) {
    problems.push(
      "advertise: must say where peers reach this agent (wss://HOST:PORT), because listen names every address",
    );
  }
  const own = advertise === undefined ? [] : ([["advertise", advertise]] as const);
  for (const [field, url] of [
    ...own,
    ...Object.entries(peers).map(([name, to]) => [`peers.${name}`, to] as const),
  ]) {
    const encrypted = url.startsWith("wss://");
    if (encrypted && transport === "plain")
      problems.push(`${field}: must be ws://HOST:PORT on loopback, because plain is set`);
    if (!encrypted && (transport !== "plain" || !isLoopback(hostOfUrl(url))))
      problems.push(`${field}: must be wss://HOST:PORT; ws:// is for loopback, where plain is set`);
  }
  return problems;
}

function isWildcard(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}
