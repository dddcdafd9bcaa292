import { messageOf, realClock, SeededRandom, sleep } from "../../src/base/index.js";
import { emulatorsBelow, type Host } from "../support/hosts.js";
import { inject, type Injected, type Scene } from "./faults.js";
import { Field } from "./field.js";
import { isBad, Judge, settle, type Outcome } from "./judge.js";
import { Running } from "./operation.js";
import { nameOf, type Plan } from "./plan.js";
import type { Subject } from "./subject.js";
import { leftoversOf, Leaving, removeAll, surveyOf, on } from "./survey.js";

/** A guest that lives long is looked after for long, but not for ever: its port comes round again. */
const MAX_SUBJECT_INJECTIONS = 30;
const LOOK_INTERVAL_MS = 200;

/** One injection and what came of it. */
export interface Result extends Plan {
  outcome: Outcome;
  problems: string[];
  /** What the fault did, and the phase in which the operation was told to be. */
  what: string;
  phase: string;
  code?: string;
  tookMs: number;
}

/** Injections one after the other on a field, which is made anew when one has gone wrong. */
export class Campaign {
  readonly #onResult: (result: Result) => void;
  #field: Field | undefined;
  #subject: Subject | undefined;
  #subjectAge = 0;
  #leaving = new Leaving();

  #stopped = false;

  constructor(onResult: (result: Result) => void) {
    this.#onResult = onResult;
  }

  /** Ends the run after the injection that is under way. */
  stop(): void {
    this.#stopped = true;
  }

  /** Runs the plans. Returns what was wrong besides them, such as what was left at the end. */
  async run(plans: readonly Plan[]): Promise<string[]> {
    const problems: string[] = [];
    for (const plan of plans) {
      if (this.#stopped) break;
      const result = await this.#runOne(plan);
      this.#onResult(result);
      if (isBad(result.outcome)) await this.#close();
    }
    problems.push(...(await this.#waitForLeaving()));
    problems.push(...(await this.#close()));
    return problems;
  }

  async #runOne(plan: Plan): Promise<Result> {
    let beganUs = realClock.nowUs();
    const result = (outcome: Outcome, problems: string[], rest: Partial<Result> = {}): Result => ({
      ...plan,
      what: "",
      phase: "",
      ...rest,
      outcome,
      problems,
      tookMs: Math.round((realClock.nowUs() - beganUs) / 1000),
    });
    try {
      this.#field ??= await Field.open();
      beganUs = realClock.nowUs();
      return await this.#inject(this.#field, plan, result);
    } catch (error) {
      const logs = this.#field?.hosts.all.map(({ name, log }) => `${name}: ${log.slice(-1500)}`) ?? [];
      return result("LOST", [`the injection broke: ${messageOf(error)}`, ...logs]);
    }
  }

  async #inject(
    field: Field,
    plan: Plan,
    result: (outcome: Outcome, problems: string[], rest?: Partial<Result>) => Result,
  ): Promise<Result> {
    const random = new SeededRandom(plan.seed);
    const subject = await this.#subjectFor(field, plan, random);
    const targets = targetsOf(field, plan, subject.host, random);
    const warmEmulators = plan.fault === "kill-warm-emulator" ? await warm(field, subject, targets[0]) : [];
    const scene: Scene = {
      field,
      random,
      source: subject.host,
      target: random.pick(targets),
      parentPid: (await subject.host.call("guest.show", { name: subject.name })).guest.pid ?? 0,
      oldEmulators: new Set(emulatorsBelow(field.directory)),
      warmEmulators,
    };
    const running =
      plan.state === "idle" ? undefined : await Running.begin({ field, plan, subject, targets });
    await running?.reach(random);
    const injected: Injected = await inject(plan.fault, scene);
    const rest = { what: injected.what, phase: running?.reached ?? "" };
    if (plan.fault === "kill-warm-emulator") await cool(scene.source, subject, targets[0]);
    const unsettled = await settle({ field, running, injected, leaving: this.#leaving });
    if (unsettled.length > 0) return result("STUCK", unsettled, rest);
    const verdict = await new Judge({ field, plan, subject, injected }).judge(running);
    const { outcome, problems, code } = verdict;
    const whole = { ...rest, ...(code === undefined ? {} : { code }) };
    if (isBad(outcome)) return result(outcome, problems, whole);
    const left = await this.#tidy(field, subject);
    return left.length > 0 ? result("LEFTOVER", left, whole) : result(outcome, [], whole);
  }

  async #subjectFor(field: Field, plan: Plan, random: SeededRandom): Promise<Subject> {
    // Drawn in any case, so that what follows does not depend on whether the last one lived.
    const host = random.pick(field.hosts.all);
    if (this.#subject === undefined || this.#subjectAge >= MAX_SUBJECT_INJECTIONS) {
      this.#subjectAge = 0;
      this.#subject = await field.subjectOn(host, `s${plan.index}`);
    }
    this.#subjectAge += 1;
    return this.#subject;
  }

  /** Removes what the injection made or broke. Returns what is left that should not be. */
  async #tidy(field: Field, subject: Subject): Promise<string[]> {
    const keptUntilHere = await leftoversOf(field, this.#leaving);
    if (keptUntilHere.length > 0) return keptUntilHere;
    const surveys = await surveyOf(field);
    const state = on(surveys, subject.host).guests.get(subject.name)?.state;
    const origin = on(surveys, field.nursery.host).guests.get(field.nursery.name);
    if (origin?.state !== "running") {
      // It was judged already; without it there are no new guests.
      await this.#close();
      return [];
    }
    if (state !== "running" || this.#subjectAge >= MAX_SUBJECT_INJECTIONS) this.#subject = undefined;
    const kept = [field.nursery, ...(this.#subject === undefined ? [] : [this.#subject])];
    const left = await removeAll(
      field,
      (host, guest) =>
        kept.some((one) => one.host === host && one.name === guest.name) || this.#leaving.has(host, guest.id),
    );
    return left.length > 0 ? left : leftoversOf(field, this.#leaving);
  }

  async #waitForLeaving(): Promise<string[]> {
    const field = this.#field;
    if (field === undefined) return [];
    try {
      for (;;) {
        const late = this.#leaving.overdue(await surveyOf(field));
        if (late.length > 0 || this.#leaving.isEmpty) return late;
        await sleep(realClock, LOOK_INTERVAL_MS);
      }
    } catch (error) {
      return [messageOf(error)];
    }
  }

  async #close(): Promise<string[]> {
    const field = this.#field;
    this.#field = undefined;
    this.#subject = undefined;
    this.#leaving = new Leaving();
    try {
      await field?.close();
      return [];
    } catch (error) {
      return [messageOf(error)];
    }
  }
}

function targetsOf(field: Field, plan: Plan, source: Host, random: SeededRandom): Host[] {
  const others = field.hosts.all.filter((host) => host !== source);
  const first = random.pick(others);
  switch (plan.operation) {
    case "fork-here":
    case "fork-shared":
      return [source];
    case "fork-two":
      return [first, ...others.filter((host) => host !== first)];
    case "fork":
    case "migrate":
    case "precopy":
      return [first];
  }
}

/** Has an emulator wait for a child of the subject on a host. Returns its process. */
async function warm(field: Field, subject: Subject, target: Host | undefined): Promise<number[]> {
  const before = new Set(emulatorsBelow(field.directory));
  await subject.host.call("guest.warm", { name: subject.name, to: [target?.name ?? ""], count: 1 });
  return emulatorsBelow(field.directory).filter((pid) => !before.has(pid));
}

async function cool(source: Host, subject: Subject, target: Host | undefined): Promise<void> {
  await source.call("guest.warm", { name: subject.name, to: [target?.name ?? ""], count: 0 });
}

/** The name under which a result is run again. */
export function again(result: Result, seed: number): string {
  return `scripts/chaos --seed ${seed} --only '${nameOf(result)}' (injection ${result.index})`;
}
