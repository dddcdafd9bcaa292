import { messageOf } from "../../base/index.js";
import { requireNoDisks } from "../disks/fork-disks.js";
import { AgentError } from "../errors.js";
import { requireTracked } from "../guests/admission.js";
import type { Guest } from "../guests/guest.js";
import { networkOfForked } from "../network/translate.js";
import type { Services } from "../services.js";
import { sharingSpecOf } from "./child-making.js";
import { canBeShared } from "./sharers.js";
import { peerGuestOf } from "./prepare-params.js";

/** Boot files may have to be sent, and each emulator takes a tenth of a second or more to start. */
const WARM_DEADLINE_MS = 120_000;

/**
 * Keeps `count` emulators ready for children of the guest with that kind of network, at each host; without hosts, at this one.
 * @throws AgentError `refused` where the guests' memory, here or there, is not tracked, and for a guest with disks; what a peer answers.
 */
export async function warmAt(
  services: Services,
  guest: Guest,
  options: { to: readonly string[]; count: number; network: "isolated" | "attached" },
): Promise<{ host: string; count: number }[]> {
  requireTracked(services.paths, "given warm emulators for its children on");
  // An emulator is started with its disks, and those of a child are made when it is.
  requireNoDisks(guest, "given warm emulators");
  void describeAhead(guest);
  const hosts = options.to.length === 0 ? [services.configuration.name] : options.to;
  return Promise.all(
    hosts.map(async (host) => ({ host, count: await warmAtOne(services, guest, host, options) })),
  );
}

/** What of the guest's device state stays as it is: the first fork finds that done. Never rejects, as the fork says what is wrong with it. */
async function describeAhead(guest: Guest): Promise<void> {
  if (guest.state !== "running" || !guest.hasEmulator || guest.occupation !== undefined) return;
  try {
    await guest.live.emulator.prepareDeviceState({ handOver: false, ahead: true });
  } catch (error) {
    guest.log.debug({ problem: messageOf(error) }, "its device state could not be looked at ahead");
  }
}

async function warmAtOne(
  services: Services,
  guest: Guest,
  host: string,
  options: { count: number; network: "isolated" | "attached" },
): Promise<number> {
  const url = services.peers.resolve(host);
  if (services.peers.isSelf(url) && canBeShared(guest)) return warmHere(services, guest, options);
  const client = await services.peers.connect(url);
  const params = {
    guest: { ...warmedGuest(guest, options), name: guest.name },
    emulatorVersion: guest.hasEmulator ? guest.live.emulator.version : "unknown",
    count: options.count,
  };
  const first = await client.call("peer.warm", params, { deadlineMs: WARM_DEADLINE_MS });
  for (const sha256 of first.missingFiles) await services.peers.putFile(url, sha256);
  const last = first.ready ? first : await client.call("peer.warm", params, { deadlineMs: WARM_DEADLINE_MS });
  if (last.ready) {
    // More lanes than emulators would be of no use.
    await services.spares.want(url, guest.id, last.count);
    return last.count;
  }
  throw new AgentError("transfer-failed", `${host} asks again for boot files it was given`);
}

/** Emulators for children that share the guest's memory: they have it mapped already. */
async function warmHere(
  services: Services,
  guest: Guest,
  options: { count: number; network: "isolated" | "attached" },
): Promise<number> {
  const { pool } = services.starter;
  const { count } = options;
  const spec = sharingSpecOf(services, guest, warmedGuest(guest, options));
  const ready = await pool.warm(spec, count);
  // Nobody can be forked from it any more.
  if (count > 0) void guest.live.exited.then(() => pool.warm(spec, 0));
  return ready;
}

function warmedGuest(guest: Guest, { network }: { network: "isolated" | "attached" }) {
  const attached = network === "attached";
  return peerGuestOf(guest, networkOfForked(guest.config.network, { attached, forwards: [] }), "fork");
}
