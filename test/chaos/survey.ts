import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { realClock, sleep } from "../../src/base/index.js";
import type { GuestView, TransferView } from "../../src/control/index.js";
import { emulatorsBelow, type Host } from "../support/hosts.js";
import { registrationsOf } from "./emulators.js";
import type { Field } from "./field.js";

const CALL_DEADLINE_MS = 5000;
const LEFTOVER_DEADLINE_MS = 6000;
const LOOK_INTERVAL_MS = 150;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** What an agent says there is on its host. */
export interface HostSurvey {
  host: Host;
  guests: ReadonlyMap<string, GuestView>;
  transfers: readonly TransferView[];
}

/** Asks every agent. Rejects when one does not answer. */
export async function surveyOf(field: Field): Promise<HostSurvey[]> {
  return Promise.all(
    field.hosts.all.map(async (host) => {
      const options = { deadlineMs: CALL_DEADLINE_MS };
      const { guests } = await host.client.call("guest.list", {}, options);
      const { transfers } = await host.client.call("transfer.list", {}, options);
      return { host, guests: new Map(guests.map((guest) => [guest.name, guest])), transfers };
    }),
  );
}

/** The survey of one host. */
export function on(surveys: readonly HostSurvey[], host: Host): HostSurvey {
  const found = surveys.find((survey) => survey.host === host);
  if (found === undefined) throw new Error(`host ${host.name} is not in the survey`);
  return found;
}

/** Guests that are on their way out by themselves, and when they must be gone. */
export class Leaving {
  readonly #guests: { host: Host; name: string; id: string; untilUs: number }[] = [];

  add(host: Host, guest: GuestView, withinMs: number): void {
    this.#guests.push({ host, name: guest.name, id: guest.id, untilUs: realClock.nowUs() + withinMs * 1000 });
  }

  /** Whether a guest of a host may still be there. */
  has(host: Host, id: string): boolean {
    return this.#guests.some((guest) => guest.host === host && guest.id === id);
  }

  /** Forgets those that are gone. Returns, in words, those that should be. */
  overdue(surveys: readonly HostSurvey[]): string[] {
    const late: string[] = [];
    for (const guest of [...this.#guests]) {
      const isThere = [...on(surveys, guest.host).guests.values()].some(({ id }) => id === guest.id);
      const isLate = isThere && realClock.nowUs() > guest.untilUs;
      if (isLate) late.push(`guest ${guest.name} should have left ${guest.host.name} by itself`);
      if (!isThere || isLate) this.#guests.splice(this.#guests.indexOf(guest), 1);
    }
    return late;
  }

  get isEmpty(): boolean {
    return this.#guests.length === 0;
  }
}

/** What is on the hosts and belongs to no guest and no transfer, in words; given a while to go away by itself. */
export async function leftoversOf(field: Field, leaving: Leaving): Promise<string[]> {
  const untilUs = realClock.nowUs() + LEFTOVER_DEADLINE_MS * 1000;
  for (;;) {
    const surveys = await surveyOf(field);
    const found = [...surveys.flatMap((survey) => leftoversOn(survey, leaving)), ...leaving.overdue(surveys)];
    if (found.length === 0 || realClock.nowUs() > untilUs) return found;
    await sleep(realClock, LOOK_INTERVAL_MS);
  }
}

function leftoversOn({ host, guests, transfers }: HostSurvey, leaving: Leaving): string[] {
  const listed = [...guests.values()];
  const mayStay = (id: string): boolean => listed.some((guest) => guest.id === id) || leaving.has(host, id);
  const found = transfers
    .filter(({ phase, guest }) => !["complete", "failed", "cancelled"].includes(phase) && !isLeaving(guest))
    .map(({ id, phase }) => `transfer ${id} is ${phase} on ${host.name}`);
  function isLeaving(name: string): boolean {
    const id = guests.get(name)?.id;
    return id !== undefined && leaving.has(host, id);
  }
  for (const [what, directory] of [
    ["memory", host.memoryDirectory],
    ["state", join(host.stateDirectory, "guests")],
  ] as const) {
    for (const id of existsSync(directory) ? readdirSync(directory) : []) {
      if (UUID.test(id) && !mayStay(id)) found.push(`${what} of no guest on ${host.name}: ${id}`);
    }
  }
  for (const pid of emulatorsBelow(host.stateDirectory)) {
    const guest = listed.find((candidate) => candidate.pid === pid);
    if (guest === undefined) {
      if (leaving.isEmpty) found.push(`emulator of no guest on ${host.name}: process ${pid}`);
    } else if (!leaving.has(host, guest.id)) {
      found.push(...leftoversIn(host, guest, pid));
    }
  }
  return found;
}

/** What a transfer that is over has left in a guest. */
function leftoversIn(host: Host, guest: GuestView, pid: number): string[] {
  const found: string[] = [];
  try {
    if (isKept(guest)) return [];
    // What children share of a guest's memory is protected for as long as they do, and the memory of a parent that is gone stays mapped.
    if (guest.sharers === undefined && registrationsOf(pid) > 0)
      found.push(`memory of guest ${guest.name} on ${host.name} is still registered`);
    if (guest.sharesWith !== undefined) return found;
    if (mapsRemoved(pid, host.memoryDirectory))
      found.push(`guest ${guest.name} on ${host.name} has memory mapped that was removed`);
    const directory = join(host.memoryDirectory, guest.id);
    const files = readdirSync(directory).filter((name) => !isOfGuest(directory, name));
    if (files.length > 0)
      found.push(
        `files of transfers beside the memory of ${guest.name} on ${host.name}: ${files.join(", ")}`,
      );
  } catch {
    // It ended between two looks; the next one tells.
    found.push(`guest ${guest.name} on ${host.name} is ending`);
  }
  return found;
}

/**
 * A migrated child that ran and can never be complete stands still for its operator, who removes it; whoever touches a page it lacks waits. Its record beside its memory
 * may lack that word, where the file system it is on was full.
 */
function isKept(guest: GuestView): boolean {
  return guest.state === "paused" && /its memory cannot be completed/.test(guest.message ?? "");
}

/** Whether a process has a file below `directory` mapped that has no name any more. */
function mapsRemoved(pid: number, directory: string): boolean {
  const lines = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n");
  return lines.some((line) => line.includes(`${directory}/`) && line.endsWith("(deleted)"));
}

/**
 * What a guest keeps beside its memory for as long as it lives: what its children touched first, and that its memory was mapped by others, which may be emulators that
 * wait for a child, so it is no sign of one. Who shares memory is told by `sharers`, and seen in what is registered and mapped.
 */
const OF_GUESTS = new Set(["working-set", "shared"]);

/** The guest's memory, and the word that it is complete, which its parent's agent may ask for as long as it lives. */
function isOfGuest(directory: string, name: string): boolean {
  if (name.startsWith("ram") || OF_GUESTS.has(name)) return true;
  return recordOf(directory, name)?.complete !== undefined;
}

/** What the child's side of a transfer wrote down; undefined for other files. */
function recordOf(directory: string, name: string): { complete?: object } | undefined {
  if (!/^transfer-\d+-child\.json$/.test(name)) return undefined;
  return JSON.parse(readFileSync(join(directory, name), "utf8")) as { complete?: object };
}

/** Removes guests, whatever state they are in. Returns what could not be removed. */
export async function removeAll(
  field: Field,
  isKept: (host: Host, guest: GuestView) => boolean,
): Promise<string[]> {
  const untilUs = realClock.nowUs() + 2 * LEFTOVER_DEADLINE_MS * 1000;
  for (;;) {
    const left: string[] = [];
    for (const { host, guests } of await surveyOf(field)) {
      for (const guest of guests.values()) {
        if (isKept(host, guest)) continue;
        const { name } = guest;
        try {
          await host.call("guest.kill", { name }).catch(() => {});
          await host.call("guest.remove", { name });
        } catch (error) {
          left.push(`guest ${name} on ${host.name} (${guest.state}) cannot be removed: ${String(error)}`);
        }
      }
    }
    if (left.length === 0 || realClock.nowUs() > untilUs) return left;
    await sleep(realClock, LOOK_INTERVAL_MS);
  }
}
