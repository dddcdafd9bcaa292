import { codeOf, messageOf, type Clock, type Log } from "../../base/index.js";
import type { Emulator, Forward, Network } from "../../guest/index.js";
import { cutConnections } from "../../memory/index.js";
import { AgentError } from "../errors.js";
import { addAnew } from "../network/guest-link.js";
import { placeTaps } from "../network/tap.js";
import { announce } from "../transfers/hosted-child.js";

/** A guest and the place in the network that it is to have. Without an emulator it has ended, and its place is nobody's. */
export interface Side {
  name: string;
  emulator: Emulator | undefined;
  network: Network;
}

/** What a move cost, and what of the other one's place could not be had. */
export interface Moved {
  gapUs: number;
  cut: number;
  message?: string;
}

interface Parts {
  clock: Clock;
  log: Log;
  /** Ends connections; a test puts something else in its place. */
  cut?: typeof cutConnections;
}

/**
 * Gives two guests their places in the network, whatever of that they have already: what is the other one's is taken from each first, and never have both the same. So it may be done again
 * after it was broken off anywhere, and with other places, to take it back.
 * @param main the one whose place must be had; for the other one a message says what it lacks.
 * @throws AgentError, GuestError or MemoryError.
 */
export async function movePlaces(main: Side, other: Side, parts: Parts): Promise<Moved> {
  switch (main.network.mode) {
    case "user":
      return movePorts(main, other, parts);
    case "tap":
      return moveTaps(main, other, parts);
    default:
      return { gapUs: 0, cut: 0 };
  }
}

/**
 * Port by port: nobody listens at one for as long as it takes to tell two emulators. Only then are connections ended that the former one has there still, because who lost one comes again
 * at once.
 */
async function movePorts(main: Side, other: Side, { clock, cut = cutConnections }: Parts): Promise<Moved> {
  const emulator = requireEmulator(main);
  let gapUs = 0;
  for (const forward of forwardsOf(main)) {
    const fromUs = clock.nowUs();
    await removeIfThere(other.emulator, forward);
    await addAnew(emulator, forward);
    gapUs = Math.max(gapUs, clock.nowUs() - fromUs);
  }
  const problem = await moveBack(main, other);
  const ended =
    cut(emulator.pid, tcpOf(other)) +
    (other.emulator === undefined ? 0 : cut(other.emulator.pid, tcpOf(main)));
  return { gapUs: Math.floor(gapUs), cut: ended, ...(problem === undefined ? {} : { message: problem }) };
}

/** The other one's ports, with which a swap neither stands nor falls. @returns what is wrong with them, in words. */
async function moveBack(main: Side, other: Side): Promise<string | undefined> {
  let problem: string | undefined;
  for (const forward of forwardsOf(other)) {
    await removeIfThere(main.emulator, forward);
    try {
      if (other.emulator !== undefined) await addAnew(other.emulator, forward);
    } catch (error) {
      problem ??= lacks(other, error);
    }
  }
  return problem;
}

/** One run of ip(8) for both, so that the address is nowhere for less than a millisecond. */
async function moveTaps(main: Side, other: Side, { clock, log }: Parts): Promise<Moved> {
  requireEmulator(main);
  const sides = [other, main].filter(({ emulator }) => emulator !== undefined);
  const fromUs = clock.nowUs();
  await placeTaps(sides.flatMap(({ network }) => (network.mode === "tap" ? [network] : [])));
  const gapUs = Math.floor(clock.nowUs() - fromUs);
  for (const { emulator, network } of sides) {
    // Switches beyond the bridge learn of it from what it says.
    if (emulator !== undefined && network.mode === "tap" && network.bridge !== undefined)
      announce(emulator, network, log);
  }
  return { gapUs, cut: 0 };
}

/** How the message of a guest begins that was not given back its place. */
export const SWAP_FAILED = "a swap failed";

const NOT_THERE = "runs, but not at its place in the network";

/** What a guest that must run on lacks of its place. */
export function lacks({ name }: Pick<Side, "name">, error: unknown): string {
  return `${name} ${NOT_THERE}: ${messageOf(error)}`.slice(0, 500);
}

/** Whether a guest's message is of a swap before, which gave it no place. */
export function isLack(message: string | undefined): boolean {
  return message?.includes(NOT_THERE) === true || message?.startsWith(SWAP_FAILED) === true;
}

function requireEmulator({ name, emulator }: Side): Emulator {
  if (emulator !== undefined) return emulator;
  throw new AgentError("bad-state", `guest ${name} has ended`);
}

/** One that has ended has no ports, and one that was never given this one has not either. */
async function removeIfThere(emulator: Emulator | undefined, forward: Forward): Promise<void> {
  try {
    await emulator?.removeForward(forward);
  } catch (error) {
    const code = codeOf(error);
    if (code !== "command-failed" && code !== "gone") throw error;
  }
}

function forwardsOf({ network }: Side): readonly Forward[] {
  return network.mode === "user" ? network.forwards : [];
}

function tcpOf(side: Side): Forward[] {
  return forwardsOf(side).filter(({ protocol }) => protocol === "tcp");
}
