import { statSync } from "node:fs";
import { codeOf, messageOf } from "../../base/index.js";
import type { Params, SwapOutcome } from "../../control/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import { leastUnprivilegedPort } from "../network/ports.js";
import { requireBridge } from "../network/tap.js";
import type { Services } from "../services.js";
import { nameBeside } from "../transfers/child-names.js";
import { isLack, movePlaces, SWAP_FAILED, type Moved } from "./move-roles.js";
import { exchanged, requireExchangeable, roleOf, type Role } from "./roles.js";
import { giveNames, settleSwap, sideOf } from "./settle-swaps.js";
import { SwapFile } from "./swap-record.js";

/**
 * Exchanges what the world knows two running guests by. The machines themselves, their memory, disks and devices, stay as they are, and everything kept of them goes by their ids.
 *
 *     record: moving          from here on: undone by whoever finds it
 *     ports, or bridge port   the parent's to the child; then the child's to the parent
 *     record: moved           from here on: brought to its end
 *     names                   both at once
 *     no record
 *
 * @throws AgentError `bad-request`, `no-such-guest`, `busy`, `bad-state`, `not-ready`, `refused`, `network`, `draining`, `swap-failed`; GuestError of an emulator that does not answer. Roles are
 * as they were, unless the message says otherwise.
 */
export async function swapGuests(services: Services, params: Params<"guest.swap">): Promise<SwapOutcome> {
  const [parent, child] = findBoth(services, params);
  for (const guest of [parent, child]) requireSwappable(guest);
  await finishEarlier(services, [parent, child]);
  requireExchangeable(roleOf(parent), roleOf(child));
  for (const guest of [parent, child]) await requireAnswer(guest);
  requirePlaces(parent, child);
  // Asking took a while.
  for (const guest of [parent, child]) requireSwappable(guest);
  const what = `a swap of ${parent.name} and ${child.name}`;
  const leave = [parent, child].map((guest) => guest.occupy({ what, transfers: [] }));
  try {
    return await services.swaps.during(() => new Swap(services, parent, child).run());
  } finally {
    for (const one of leave) one();
  }
}

function findBoth(services: Services, params: Params<"guest.swap">): [Guest, Guest] {
  const { registry, book, configuration } = services;
  const { name } = params;
  const child = nameBeside(name, params.child);
  if (name === child) throw new AgentError("bad-request", `guest ${name} cannot be swapped with itself`);
  const parent = registry.find(name);
  const found = registry.byName(child);
  if (found !== undefined) return [parent, found];
  const far = book
    .list({ active: false })
    .findLast(
      ({ peerGuest, host, phase }) =>
        peerGuest === child && host !== configuration.name && phase !== "failed",
    );
  if (far === undefined) return [parent, registry.find(child)];
  throw new AgentError(
    "no-such-guest",
    `guest ${child} is on ${far.host}, and roles are exchanged on one host: there, ramet migrate ${child} --to ${configuration.name}; then swap here`,
  );
}

/** @throws AgentError `busy`, `not-ready` or `bad-state`. */
function requireSwappable(guest: Guest): void {
  guest.requireIdle();
  if (guest.state === "receiving" || guest.state === "migrated" || guest.record.outgoing !== undefined) {
    throw new AgentError(
      "not-ready",
      `guest ${guest.name} cannot be swapped yet: it is ${guest.state}, and not in one place; ramet transfers shows what it waits for`,
    );
  }
  guest.requireState("swapped", "running");
}

/** An earlier swap of one of them may not have come to its end, as when a disk was full. @throws what keeps it from that. */
async function finishEarlier(services: Services, guests: readonly Guest[]): Promise<void> {
  for (const file of services.swaps.unfinished)
    if (guests.some(({ id }) => file.has(id))) await settleSwap(services, file, file.step === "moved");
}

/** @throws AgentError `bad-state`, GuestError `timeout` or `gone`. */
async function requireAnswer(guest: Guest): Promise<void> {
  const status = await guest.live.emulator.status();
  if (status === "running") return;
  throw new AgentError("bad-state", `guest ${guest.name} is to run, but its emulator is ${status}`);
}

/** Looks whether each emulator could have the other one's place. @throws AgentError `refused` or `network`. */
function requirePlaces(one: Guest, other: Guest): void {
  for (const [guest, from] of [
    [one, other],
    [other, one],
  ] as const) {
    const { network } = from.config;
    if (network.mode === "tap" && network.bridge !== undefined) requireBridge(network.bridge);
    if (network.mode !== "user") continue;
    const isRoot = statSync(`/proc/${guest.live.emulator.pid}`, { throwIfNoEntry: false })?.uid === 0;
    const closed = network.forwards.find(({ hostPort }) => !isRoot && hostPort < leastUnprivilegedPort());
    if (closed === undefined) continue;
    throw new AgentError(
      "refused",
      `port ${closed.hostPort} of ${from.name} is for root only, and the emulator of ${guest.name} is not root's`,
    );
  }
}

/** One exchange of roles under way. */
class Swap {
  readonly #services: Services;
  readonly #parent: Guest;
  readonly #child: Guest;
  readonly #file: SwapFile;

  constructor(services: Services, parent: Guest, child: Guest) {
    this.#services = services;
    this.#parent = parent;
    this.#child = child;
    const before = [roleOf(parent), roleOf(child)] as const;
    this.#file = new SwapFile(services.paths.swaps, { before, step: "moving" });
  }

  async run(): Promise<SwapOutcome> {
    const [parent, child] = exchanged(this.#file.before);
    await this.#file.write("moving");
    let moved: Moved;
    try {
      moved = await this.#move(child, parent);
      await this.#file.write("moved");
    } catch (error) {
      throw await this.#takeBack(error);
    }
    const problem = await this.#finish();
    const message = problem ?? moved.message;
    this.#noteLack(moved);
    const { gapUs, cut } = moved;
    this.#child.log.info({ gapUs, cut, was: this.#parent.name, message }, "the guest has another one's role");
    return {
      guest: this.#child.view(),
      other: this.#parent.view(),
      gapUs,
      cut,
      ...(message === undefined ? {} : { message }),
    };
  }

  #move(main: Role, other: Role): Promise<Moved> {
    const services = this.#services;
    return movePlaces(sideOf(services, main), sideOf(services, other), services);
  }

  /** What one of them lacked before, it has now, or the other one lacks it. */
  #noteLack({ message }: Moved): void {
    for (const guest of [this.#child, this.#parent])
      if (guest.isLive && isLack(guest.record.message)) guest.note({ state: guest.state });
    if (message !== undefined) this.#parent.note({ message });
  }

  /** Names follow places. @returns what is left to the next agent, in words. */
  async #finish(): Promise<string | undefined> {
    try {
      await giveNames(this.#services, this.#file.after);
      await this.#file.remove();
      return undefined;
    } catch (error) {
      this.#services.swaps.unfinished.add(this.#file);
      this.#child.log.error({ problem: messageOf(error) }, "a swap could not be noted in full");
      return `it is done, but not all of it is on disk yet: ${messageOf(error)}`.slice(0, 500);
    }
  }

  /** Everybody has what they had. @returns what to tell who asked. */
  async #takeBack(error: unknown): Promise<AgentError> {
    const [parent, child] = this.#file.before;
    let became = "both have the roles they had";
    try {
      const { message } = await this.#move(parent, child);
      if (message !== undefined) became = message;
      await this.#file.remove();
    } catch (failure) {
      // Tried again before the next swap, and by the next agent.
      this.#services.swaps.unfinished.add(this.#file);
      became = `and what was begun could not be taken back: ${messageOf(failure)}`;
      this.#parent.note({ message: `${SWAP_FAILED}, ${became}`.slice(0, 500) });
      this.#parent.log.error({ problem: messageOf(failure) }, "a swap that failed could not be taken back");
    }
    const text = `${parent.name} and ${child.name} could not exchange their roles: ${messageOf(error)} (${codeOf(error)}); ${became}`;
    return new AgentError("swap-failed", text.slice(0, 1000), { cause: error });
  }
}
