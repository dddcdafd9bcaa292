import { release } from "node:os";
import { API_VERSION, type AgentInfo, type Handlers, type PeerInfo } from "../../control/index.js";
import { defaultMachine } from "../../guest/index.js";
import type { AuditLogs } from "../store/audit-logs.js";
import type { Services } from "../services.js";
import { AGENT_VERSION } from "../version.js";

/** What the agent says of itself and of its peers. */
export function agentHandlers(
  services: Services,
  about: {
    startedAtMs: number;
    addresses: () => string[];
    takeover: () => Pick<AgentInfo, "takeover">;
    rehearsal: () => Pick<AgentInfo, "rehearsal">;
    audit: AuditLogs;
  },
): Pick<Handlers<"client">, "agent.info" | "agent.audit" | "agent.reload" | "peer.list" | "peer.ping"> {
  const { admission, book, catalogue, configuration, peers, registry } = services;
  return {
    "agent.info": async () => ({
      name: configuration.name,
      version: AGENT_VERSION,
      apiVersion: API_VERSION,
      pid: process.pid,
      kernel: release(),
      startedAtMs: about.startedAtMs,
      addresses: about.addresses(),
      emulators: (await catalogue.all()).map((probe) => ({
        architecture: probe.architecture,
        version: probe.version,
        machine: defaultMachine(probe.architecture, probe),
        accelerator: "tcg",
      })),
      memory: { totalBytes: admission.limitBytes, availableBytes: admission.freeBytes },
      guests: registry.list().length,
      transfers: book.active.length,
      blocks: { sentBytes: services.blocks.grants.totalSentBytes },
      ...about.rehearsal(),
      ...about.takeover(),
    }),
    "agent.audit": async ({ count }) => ({ entries: about.audit.last(count) }),
    "agent.reload": async () => {
      const { credentials } = services;
      credentials?.reload();
      services.faults.reload();
      if (credentials === undefined) return {};
      return { subject: credentials.identity.name.slice(0, 1024), endsAtMs: credentials.endsAtMs };
    },
    "peer.list": async () => ({
      peers: await peers.list(
        (url) => book.active.filter((entry) => urlOf(peers, entry.host) === url).length,
      ),
    }),
    "peer.ping": async ({ to, count }) => {
      const address = peers.resolve(to);
      const { info, roundTripsUs } = await peers.ping(address, count);
      return { address, name: info.name, version: info.version, roundTripsUs };
    },
  };
}

/** What the agent says of itself to other agents. */
export async function describeToPeer(services: Services): Promise<PeerInfo> {
  const { admission, catalogue, configuration } = services;
  return {
    name: configuration.name,
    version: AGENT_VERSION,
    emulators: (await catalogue.all()).map(({ architecture, version, machines }) => ({
      architecture,
      version,
      machines: [...machines],
    })),
    availableBytes: admission.freeBytes,
  };
}

/** Where a host of a transfer is reached; undefined when it is not known here by its name. */
export function urlOf(peers: Pick<Services["peers"], "resolve">, host: string): string | undefined {
  try {
    return peers.resolve(host);
  } catch {
    // The host of a child's parent is a name that need not be configured here.
    return undefined;
  }
}
