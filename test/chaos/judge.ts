import { realClock, sleep } from "../../src/base/index.js";
import { isFinal, type GuestView } from "../../src/control/index.js";
import type { Injected } from "./faults.js";
import type { Field } from "./field.js";
import type { Answer, Running } from "./operation.js";
import { isLocal, isMigration, type FaultName, type Plan } from "./plan.js";
import type { Subject } from "./subject.js";
import { on, surveyOf, type HostSurvey, type Leaving } from "./survey.js";

const SETTLE_DEADLINE_MS = 40_000;
const LOOK_INTERVAL_MS = 150;
/** A child whose parent's agent is gone is given up by its host after 20 s. */
const ABANDONED_MS = 25_000;

/**
 * How an injection came out. `went on`: as if nothing had been. `resumed`: after lanes were lost or an agent was started again. `failed cleanly`: the
 * operation failed with a code and the parent runs. `rolled back`: the child was killed, and the parent runs on as it was at the switch. `killed`: only what
 * the fault itself killed is gone, and is said to be. The last three must never be.
 */
export const OUTCOMES = [
  "went on",
  "resumed",
  "failed cleanly",
  "rolled back",
  "killed",
  "LOST",
  "LEFTOVER",
  "STUCK",
] as const;
export type Outcome = (typeof OUTCOMES)[number];

export function isBad(outcome: Outcome): boolean {
  return outcome === "LOST" || outcome === "LEFTOVER" || outcome === "STUCK";
}

export interface Verdict {
  outcome: Outcome;
  problems: string[];
  /** The code of a clean failure. */
  code?: string;
}

/** What may end a child that runs, and fail its transfer, without being a fault of ours. */
const MAY_END_CHILD = new Set<FaultName>([
  "kill-parent-emulator",
  "kill-child-emulator",
  "fill-child-memory",
]);

/** Waits until nothing is under way any more. Returns what still is, in words, when that takes too long. */
export async function settle(options: {
  field: Field;
  running: Running | undefined;
  injected: Injected;
  leaving: Leaving;
}): Promise<string[]> {
  const { field, running } = options;
  const untilUs = realClock.nowUs() + SETTLE_DEADLINE_MS * 1000;
  let under: string[] = [];
  while (realClock.nowUs() < untilUs) {
    const gone = field.hosts.all.filter(({ ending }) => ending !== undefined);
    if (gone.length > 0) return gone.map(({ name, ending }) => `agent ${name} ended by itself: ${ending}`);
    await running?.letSweep();
    under = await underWay(options).catch((error: unknown) => [String(error)]);
    if (under.length === 0) return [];
    await sleep(realClock, LOOK_INTERVAL_MS);
  }
  return under;
}

async function underWay({
  field,
  running,
  injected,
  leaving,
}: Parameters<typeof settle>[0]): Promise<string[]> {
  const surveys = await surveyOf(field);
  const isAnswered = running === undefined || running.isAnswered;
  const active = surveys.flatMap(({ host, guests, transfers }) =>
    transfers
      .filter(({ phase, guest }) => !isFinal(phase) && !leaving.has(host, guests.get(guest)?.id ?? ""))
      .map((view) => ({ host, view })),
  );
  const parents = active.filter(({ view }) => view.role === "parent");
  if (isAnswered && parents.length === 0) {
    // Nobody will start these any more; they leave by themselves, which need not be waited for here.
    for (const { host, view } of active) {
      const guest = on(surveys, host).guests.get(view.guest);
      if (view.phase === "preparing" && guest !== undefined && running !== undefined && !running.hasStarted)
        leaving.add(host, guest, ABANDONED_MS);
    }
  }
  const moving = surveys.flatMap(({ host, guests }) =>
    [...guests.values()]
      .filter(({ id, state }) => ["starting", "migrated"].includes(state) && !leaving.has(host, id))
      .map(({ name, state }) => `guest ${name} is ${state} on ${host.name}`),
  );
  const unnoticed = surveys.flatMap(({ host, guests }) =>
    [...guests.values()]
      .filter(({ pid }) => pid !== undefined && injected.killed.includes(pid))
      .map(({ name }) => `the end of guest ${name} on ${host.name} is not noticed`),
  );
  const waiting = active.map(
    ({ host, view }) =>
      `the ${view.role}'s side of transfer ${view.id} is ${view.phase} on ${host.name}` +
      ` (${view.pages.received} of ${view.pages.total} pages, ${view.message ?? "no message"})`,
  );
  return [...(isAnswered ? [] : ["the command is not answered"]), ...waiting, ...moving, ...unnoticed];
}

/** Looks at everything after an injection has settled. */
export class Judge {
  readonly #field: Field;
  readonly #plan: Plan;
  readonly #subject: Subject;
  readonly #injected: Injected;
  readonly #problems: string[] = [];

  constructor(options: { field: Field; plan: Plan; subject: Subject; injected: Injected }) {
    this.#field = options.field;
    this.#plan = options.plan;
    this.#subject = options.subject;
    this.#injected = options.injected;
  }

  async judge(running: Running | undefined): Promise<Verdict> {
    const surveys = await surveyOf(this.#field);
    const { nursery } = this.#field;
    const origin = on(surveys, nursery.host).guests.get(nursery.name);
    if (!this.#wasKilled(origin)) await this.#look(nursery, { guest: origin });
    if (running === undefined) return this.#judgeIdle(surveys);
    const answer = await running.answer;
    const twins = await running.end();
    if (twins) this.#problems.push("parent and child of a migration ran at the same time");
    for (const view of running.views.values()) {
      this.#field.seen.add(view.id);
      if ((view.verify?.mismatches ?? 0) > 0)
        this.#problems.push(`${view.verify?.mismatches} pages differ from the parent's at the instant`);
    }
    const verdict = isMigration(this.#plan.operation)
      ? await this.#judgeMigration(running, answer, surveys)
      : await this.#judgeFork(running, answer, surveys);
    return this.#problems.length === 0 ? verdict : { outcome: "LOST", problems: this.#problems };
  }

  async #judgeIdle(surveys: readonly HostSurvey[]): Promise<Verdict> {
    const guest = on(surveys, this.#subject.host).guests.get(this.#subject.name);
    if (this.#wasKilled(guest)) return this.#done("killed");
    await this.#look(this.#subject, { guest });
    return this.#problems.length === 0 ? this.#done("went on") : this.#done("LOST");
  }

  async #judgeFork(running: Running, answer: Answer, surveys: readonly HostSurvey[]): Promise<Verdict> {
    const parent = on(surveys, running.source).guests.get(this.#subject.name);
    let killed = this.#wasKilled(parent);
    if (!killed) await this.#look(this.#subject, { guest: parent });
    const codes: string[] = [];
    let resumed = false;
    for (const [index, child] of running.children.entries()) {
      const guest = on(surveys, child.host).guests.get(child.name);
      const told = "outcomes" in answer ? answer.outcomes[index] : undefined;
      const view = running.parentView(child.name);
      resumed ||= (view?.reconnects ?? 0) > 0;
      if (guest?.state === "running") {
        await this.#look(child, { guest, verify: true });
      } else if (this.#wasKilled(guest) || (guest === undefined && this.#injected.killed.length > 0)) {
        killed = true;
      } else if (told?.state === "running" && !this.#mayEndChild()) {
        this.#problems.push(
          `child ${child.name} ran and is ${guest?.state ?? "gone"}: ${guest?.message ?? view?.message ?? ""}`,
        );
      } else {
        codes.push(this.#codeOf(answer, told?.error?.code ?? view?.error?.code));
      }
    }
    if (killed) return this.#done("killed");
    if (codes.length > 0) return { ...this.#done("failed cleanly"), code: codes[0] ?? "" };
    return this.#done(resumed || this.#wasAgentEnded() ? "resumed" : "went on");
  }

  async #judgeMigration(running: Running, answer: Answer, surveys: readonly HostSurvey[]): Promise<Verdict> {
    const { source } = running;
    const target = running.targets[0] ?? source;
    const { name } = this.#subject;
    const here = on(surveys, source).guests.get(name);
    const there = on(surveys, target).guests.get(name);
    const views = `it is ${here?.state ?? "gone"} on ${source.name} and ${there?.state ?? "gone"} on ${target.name}`;
    if (here?.state === "running" && there?.state === "running") {
      this.#problems.push(`guest ${name} runs twice: ${views}`);
    } else if (there?.state === "running") {
      this.#subject.host = target;
      await this.#look(this.#subject, { guest: there, verify: true });
      const resumed = (running.parentView(name)?.reconnects ?? 0) > 0 || this.#wasAgentEnded();
      return this.#done(resumed ? "resumed" : "went on");
    } else if (here?.state === "running") {
      if ("outcomes" in answer) this.#problems.push(`the migration was said to have happened, but ${views}`);
      await this.#look(this.#subject, { guest: here, verify: true });
      return { ...this.#done("failed cleanly"), code: this.#codeOf(answer, undefined) };
    } else if (here?.state === "paused" && this.#mayEndChild()) {
      return this.#rollBack(running, here);
    } else if (this.#wasKilled(here) || this.#wasKilled(there)) {
      return this.#done("killed");
    } else {
      this.#problems.push(
        `guest ${name} runs nowhere: ${views}; ${here?.message ?? ""}; ${there?.message ?? ""}`,
      );
    }
    return this.#done("LOST");
  }

  /** The operator's way back when a child was killed after the switch. */
  async #rollBack(running: Running, here: GuestView): Promise<Verdict> {
    const transfer = running.parentView(here.name)?.id;
    if (transfer === undefined) {
      this.#problems.push(`guest ${here.name} stands still, and no transfer of it is known`);
      return this.#done("LOST");
    }
    try {
      await running.source.call("guest.rollback", { name: here.name });
    } catch (error) {
      this.#problems.push(`guest ${here.name} cannot be rolled back: ${String(error)}`);
    }
    const after = (await running.source.guests()).get(here.name);
    await this.#look(this.#subject, { guest: after, verify: true });
    return this.#done("rolled back");
  }

  async #look(
    subject: Subject,
    options: { guest?: GuestView | undefined; verify?: boolean } = {},
  ): Promise<void> {
    const guest = options.guest ?? (await subject.host.guests()).get(subject.name);
    if (guest?.state !== "running") {
      this.#problems.push(
        `guest ${subject.name} is ${guest?.state ?? "gone"} on ${subject.host.name}: ${guest?.message ?? ""}`,
      );
      return;
    }
    if (options.verify === true) this.#problems.push(...(await subject.verify()));
    this.#problems.push(...(await subject.look()));
  }

  /** Whether the fault ended this guest's emulator, and its agent says so. */
  #wasKilled(guest: GuestView | undefined): boolean {
    if (guest?.state !== "crashed") return false;
    const { killed, full } = this.#injected;
    return killed.length > 0 || (full !== undefined && (guest.message ?? "").includes("SIGBUS"));
  }

  #mayEndChild(): boolean {
    const { fault, operation } = this.#plan;
    return MAY_END_CHILD.has(fault) || (fault === "fill-parent-memory" && isLocal(operation));
  }

  #wasAgentEnded(): boolean {
    return /^(kill|restart)-(parent|child)-agent$/.test(this.#plan.fault);
  }

  /** A failure has a code. The command's own is not known when its agent was ended. */
  #codeOf(answer: Answer, own: string | undefined): string {
    const code = own ?? ("code" in answer ? answer.code : undefined);
    if (code === undefined || code === "internal")
      this.#problems.push(`the failure has no code: ${JSON.stringify(answer)}`);
    return code ?? "";
  }

  #done(outcome: Outcome): Verdict {
    return { outcome: this.#problems.length === 0 ? outcome : "LOST", problems: this.#problems };
  }
}
