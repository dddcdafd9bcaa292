import { assert, type Identity } from "../../base/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import { formerChildOf } from "../guests/guest-record.js";
import type { Services } from "../services.js";
import { isHeldBy, type FormerChild } from "../store/former-children.js";
import type { ChildRecord } from "./transfer-record.js";

/** A child as its guest's record, or what was noted when that was removed, tells of it. */
type PastChild = Omit<FormerChild, "leftAtMs">;

/**
 * The children of transfers this agent does not know any more, because they are long over or were an earlier agent's. A migration's parent must not hear that there is
 * none when there was: it would run on beside it, or instead of it without anybody having been asked.
 */
export class PastChildren {
  readonly #services: Services;

  constructor(services: Services) {
    this.#services = services;
  }

  /** The guest that is the child, while an emulator has it. */
  live(transfer: number, asking: Identity): Guest | undefined {
    return this.#guests(transfer).find(
      ({ isLive, record }) => isLive && isHeldBy(record.parent ?? {}, asking),
    );
  }

  /** The migrated child that ran here and has no emulator here any more. */
  ended(transfer: number, asking: Identity): PastChild | undefined {
    return this.#ended(transfer).find((child) => isHeldBy(child, asking));
  }

  /** @throws AgentError `has-run` when the child was migrated here and has ended; `not-ready` when that is not known. */
  requireNone(transfer: number, asking: Identity): void {
    const child = this.ended(transfer, asking);
    if (child !== undefined) throw this.#hasRun(child);
    this.#services.formerChildren.requireWhole(transfer);
  }

  /** Others' children are as if they were not there, but for who would let a parent run because of that. @throws AgentError `refused`. */
  requireOwn(transfer: number, asking: Identity): void {
    const listed = this.#guests(transfer).map(({ record }) => record.parent ?? {});
    if ([...listed, ...this.#services.formerChildren.of(transfer)].every((child) => isHeldBy(child, asking)))
      return;
    throw new AgentError(
      "refused",
      `the child of transfer ${transfer} was taken from somebody else than ${asking.name}`,
    );
  }

  /** An earlier agent's child can never be completed, and is removed; a guest that is complete is nobody's to cancel. */
  async cancel(guest: Guest, transfer: number, asking: Identity): Promise<void> {
    if (guest.state !== "receiving") {
      throw new AgentError(
        "bad-state",
        `guest ${guest.name} is complete and ${guest.state}; remove it as any other guest`,
      );
    }
    await this.#services.registry.remove(guest);
    const child = this.ended(transfer, asking);
    if (child !== undefined) throw this.#hasRun(child);
  }

  /** Why a live guest that is not running cannot be run. */
  cannotRun(guest: Guest, transfer: number): AgentError {
    const child = formerChildOf(guest.record);
    if (child !== undefined && guest.state !== "receiving") return hasRun(this.#services, guest);
    return new AgentError(
      "bad-state",
      `guest ${guest.name}, the child of transfer ${transfer}, is ${guest.state} and cannot be run`,
    );
  }

  #hasRun(child: PastChild): AgentError {
    return hasRunError(child, { host: this.#services.configuration.name, state: this.#stateOf(child) });
  }

  #ended(transfer: number): PastChild[] {
    const listed = this.#guests(transfer)
      .filter(({ isLive }) => !isLive)
      .flatMap(({ record }) => formerChildOf(record) ?? []);
    return [...listed, ...this.#services.formerChildren.of(transfer)];
  }

  #stateOf({ transfer, guest }: PastChild): string | undefined {
    return this.#guests(transfer).find(({ name }) => name === guest)?.state;
  }

  #guests(transfer: number): Guest[] {
    return this.#services.registry.list().filter(({ record }) => record.parent?.transfer === transfer);
  }
}

/** What became of a guest that came by a migration, ran, and does not any more. */
function hasRun({ configuration }: Services, { record, state }: Guest): AgentError {
  const child = formerChildOf(record);
  assert(child !== undefined, "only a migrated guest is asked for by its parent's agent");
  return hasRunError(child, { host: configuration.name, state });
}

/** Its parent must not run on as if it had not run. */
export function migratedAndRan({ step, params }: Readonly<ChildRecord>): boolean {
  return step === "running" && params.kind === "migrate";
}

/** Why a child cannot be commanded: for what it is at, or `over`. */
export function badStep(
  services: Services,
  guest: Guest,
  { record, step, doing }: { record: Readonly<ChildRecord>; step: string; doing: string },
): AgentError {
  if (step === "over" && migratedAndRan(record)) return hasRun(services, guest);
  if (step === "loading" && record.incarnation > 0) {
    const message = `whether the child of transfer ${record.transfer} was loaded is not known yet; ask again`;
    return new AgentError("not-ready", message);
  }
  return new AgentError(
    "bad-state",
    `the child of transfer ${record.transfer} is ${step} and cannot be ${doing}`,
  );
}

function hasRunError(
  child: Pick<PastChild, "transfer" | "guest" | "complete" | "movedTo">,
  where: { host: string; state?: string | undefined },
): AgentError {
  const { transfer, guest, complete, movedTo } = child;
  const { host, state } = where;
  const had = complete ? ", with all its memory" : "";
  return new AgentError(
    "has-run",
    `guest ${guest}, the child of transfer ${transfer}, has run on ${host}${had}; ${sinceThen(movedTo, state)}`,
  );
}

function sinceThen(movedTo: string | undefined, state: string | undefined): string {
  if (movedTo !== undefined) return `it went on to ${movedTo}, where it may run`;
  // What still receives when it has ended is about to be removed.
  return state === undefined || state === "receiving" ? "it is there no more" : `it is ${state} there`;
}
