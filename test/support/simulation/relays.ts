import { sleep } from "../../../src/base/index.js";
import type { ParentSession } from "../../../src/transfer/index.js";
import type { ChildAgent } from "./child-agent.js";
import type { Life } from "./host.js";
import type { ParentAgentOptions } from "./parent-record.js";
import { SimulatedPeer } from "./peer.js";

/** How long the instant may wait for relays, in ms. */
const LINK_MS = 5;

/** Has children pass on to each other what they are given; where that fails, the parent sends everything itself. */
export async function linkRelays(
  life: Life,
  { plan, children, network }: ParentAgentOptions,
  sessionOf: (child: ChildAgent) => ParentSession,
): Promise<void> {
  const opened: Promise<void>[] = [];
  for (const [index, child] of children.entries()) {
    const relay = children[plan.relays[index] ?? children.length];
    if (relay === undefined) continue;
    const session = sessionOf(child);
    session.expectRelay();
    const opening = new SimulatedPeer(network, life, relay).relayTo(child.transfer);
    const told = opening.then(() => new SimulatedPeer(network, life, child).relayFrom(relay));
    told.catch(() => session.sendItself());
    opened.push(opening);
  }
  await Promise.race([Promise.allSettled(opened), sleep(life.clock, LINK_MS)]);
}
