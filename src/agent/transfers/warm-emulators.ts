import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import { networkOfForked } from "../network/translate.js";
import type { Services } from "../services.js";
import { peerGuestOf } from "./prepare-params.js";

/** Boot files may have to be sent, and each emulator takes a tenth of a second or more to start. */
const WARM_DEADLINE_MS = 120_000;

/** Keeps `count` emulators ready for children of the guest with that kind of network, at each host; without hosts, at this one. */
export async function warmAt(
  services: Services,
  guest: Guest,
  options: { to: readonly string[]; count: number; network: "isolated" | "attached" },
): Promise<{ host: string; count: number }[]> {
  const hosts = options.to.length === 0 ? [services.configuration.name] : options.to;
  return Promise.all(
    hosts.map(async (host) => ({ host, count: await warmAtOne(services, guest, host, options) })),
  );
}

async function warmAtOne(
  services: Services,
  guest: Guest,
  host: string,
  options: { count: number; network: "isolated" | "attached" },
): Promise<number> {
  const url = services.peers.resolve(host);
  const client = await services.peers.connect(url);
  const network = networkOfForked(guest.config.network, {
    attached: options.network === "attached",
    forwards: [],
  });
  const params = {
    guest: { ...peerGuestOf(guest, network, "fork"), name: guest.name },
    emulatorVersion: guest.hasEmulator ? guest.live.emulator.version : "unknown",
    count: options.count,
  };
  const first = await client.call("peer.warm", params, { deadlineMs: WARM_DEADLINE_MS });
  if (first.ready) return first.count;
  for (const sha256 of first.missingFiles) await services.peers.putFile(url, sha256);
  const second = await client.call("peer.warm", params, { deadlineMs: WARM_DEADLINE_MS });
  if (second.ready) return second.count;
  throw new AgentError("transfer-failed", `${host} asks again for boot files it was given`);
}
