import { randomBytes } from "node:crypto";
import { assert, messageOf, sleep, type Holder } from "../../base/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";
import type { OutgoingChild } from "./outgoing-child.js";

/** How children pass on to each other; see `relaysOf`. */
export type RelayShape = "chain" | "tree" | "none";

/** How long the instant waits for hosts that are to pass on; what is swept before they do reaches the others from here. */
const LINK_DEADLINE_MS = 250;
const TOKEN_BYTES = 24;

/**
 * For each child, by its index, the one that passes on to it; undefined for those that the parent sends everything itself. The first child of each host has another
 * host's before it, so that each host sends and takes the memory once, or sends it twice in a tree; further children of a host are fed by its first.
 * @param urls the host of each child.
 * @param isSelf whether that is the parent's host, whose children need no network.
 */
export function relaysOf(
  urls: readonly string[],
  shape: RelayShape,
  isSelf: (url: string) => boolean,
): (number | undefined)[] {
  const firsts: number[] = [];
  return urls.map((url, index) => {
    if (shape === "none" || isSelf(url)) return undefined;
    const sibling = firsts.find((first) => urls[first] === url);
    if (sibling !== undefined) return sibling;
    const place = firsts.push(index) - 1;
    if (place === 0) return undefined;
    return firsts[shape === "chain" ? place - 1 : (place - 1) >> 1];
  });
}

/**
 * Has prepared children pass on to each other. Resolves when those that pass on do so from now on, or after a short while; where it fails, the parent
 * sends everything itself. Never rejects.
 */
export async function linkRelays(
  services: Services,
  guest: Guest,
  children: readonly OutgoingChild[],
  shape: RelayShape,
): Promise<void> {
  const urls = children.map(({ record }) => record.url);
  const relays = relaysOf(urls, shape, (url) => services.peers.isSelf(url));
  const opened: Promise<void>[] = [];
  for (const [index, child] of children.entries()) {
    const relay = children[relays[index] ?? children.length];
    if (relay === undefined) continue;
    const token = randomBytes(TOKEN_BYTES).toString("base64url");
    child.session.expectRelay();
    child.entry.facts.relay = { from: relay.target.host };
    const opening = open(relay, child, token);
    const told = opening.then(() => tell(relay, child, token));
    told.catch((error: unknown) => {
      const hosts = { from: relay.target.host, to: child.target.host };
      guest.log.info({ ...hosts, problem: messageOf(error) }, "a child cannot pass on to another");
      child.session.sendItself();
    });
    opened.push(opening);
  }
  if (opened.length === 0) return;
  await Promise.race([Promise.allSettled(opened), sleep(services.clock, LINK_DEADLINE_MS)]);
}

async function open(relay: OutgoingChild, child: OutgoingChild, token: string): Promise<void> {
  const { transfer, holder } = child.record;
  await relay.target.relayTo({ transfer, token, holder: shown(holder) });
}

async function tell(relay: OutgoingChild, child: OutgoingChild, token: string): Promise<void> {
  const { url, holder } = relay.record;
  await child.target.relayFrom({ host: relay.target.host, url, token, holder: shown(holder) });
}

/** Who answers over the network, as a command may name him. */
function shown(holder: Holder | undefined): { kind: "certificate" | "key"; name: string } {
  assert(holder !== undefined, "a child that is prepared has a holder");
  const { kind, name } = holder;
  if (kind === "local")
    throw new AgentError("bad-request", "a child of this host needs nobody to pass on to it");
  return { kind, name };
}
