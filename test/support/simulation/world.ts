import { CodedError, SeededRandom } from "../../../src/base/index.js";
import { drawWorkingSet } from "./ahead.js";
import { checkAlways, checkEnd, checkPage, type Scene } from "./checks.js";
import { ChildAgent } from "./child-agent.js";
import { SimulatedGuest } from "./guest.js";
import { SimulatedHost } from "./host.js";
import { contentOf, SimulatedMemory } from "./memory.js";
import { SimulatedNetwork } from "./network.js";
import { ParentAgent } from "./parent-agent.js";
import { planOf, type Plan } from "./plan.js";
import { Scheduler } from "./scheduler.js";

/** Writers never rest for long, so a run that waits for dialling alone has many events. */
const MAX_EVENTS = 300_000;
/** After so many writes a writer rests longer, and longer still after as many more, so that long waits cost few events. */
const WRITES_AT_FULL_SPEED = 200;
/** A crash at a drawn act is among the first so many; few runs have more. */
const CRASH_AMONG_ACTS = [20, 100, 400];

/** One parent, its children, and the seed that decides everything that happens to them. */
export class World {
  readonly plan: Plan;
  readonly scheduler: Scheduler;
  /** The parent's host, then those of the children. */
  readonly hosts: SimulatedHost[] = [];
  readonly #random: SeededRandom;
  readonly #network: SimulatedNetwork;
  readonly #guest: SimulatedGuest;
  readonly #agent: ParentAgent;
  readonly #children: ChildAgent[];
  readonly #abort = new AbortController();
  #oracle: readonly Uint8Array[] | undefined;
  #told = false;
  #version = 1;
  #writes = 0;

  constructor(seed: number, plan?: Partial<Plan>) {
    this.#random = new SeededRandom(seed);
    this.plan = { ...planOf(this.#random), ...plan };
    this.scheduler = new Scheduler(this.#random);
    this.#network = new SimulatedNetwork(this.scheduler, this.plan);
    this.#guest = this.#makeGuest();
    const host = this.#host("parent's host");
    this.#children = Array.from({ length: this.plan.children }, (_, index) => this.#makeChild(index + 1));
    this.#agent = new ParentAgent({
      plan: this.plan,
      host,
      network: this.#network,
      scheduler: this.scheduler,
      guest: this.#guest,
      children: this.#children,
      save: () => this.#save(),
      workingSet: drawWorkingSet(this.#random, { pages: this.plan.pages, share: this.plan.ahead }),
      signal: this.#abort.signal,
      onTold: () => this.#scheduleLateCrashes(),
    });
    for (const child of this.#children) child.belongTo(this.#agent);
  }

  /** Plays the whole run and checks every promise at its end. Throws when one is broken. */
  async play(): Promise<void> {
    const { scheduler } = this;
    this.#guest.boot();
    this.#scheduleTrouble();
    for (const host of this.hosts) host.start();
    scheduler.checkInvariants = () => checkAlways(this.#scene());
    await scheduler.runUntil(() => this.#isOver(), MAX_EVENTS);
    checkEnd(this.#scene());
  }

  /** Where everything stands, for the message of a failing seed. */
  describe(): object {
    return {
      atUs: this.scheduler.nowUs(),
      parent: this.#agent.describe(),
      children: this.#children.map((child) => child.describe()),
      hosts: this.hosts.map(({ name, life, acts, crashes }) => ({
        name,
        alive: life !== undefined,
        acts,
        crashes,
      })),
    };
  }

  /** How the run ended, for statistics: `complete`, the code its operator was told, or what became of the children of a fork whose start went well. */
  get result(): string {
    const crashes = this.hosts.reduce((sum, host) => sum + host.crashes, 0);
    const reconnected = this.#children.some((child) => child.reconnects > 0);
    const after = crashes > 0 ? " after crashes" : reconnected ? " after lost lanes" : "";
    const { failure } = this.#agent;
    const all = this.#children.every((child) => child.complete);
    if (all) return `complete${after}`;
    if (failure instanceof CodedError) return `${failure.code}${after}`;
    return (this.#children.some((child) => child.complete) ? "partly" : "none") + after;
  }

  /** Pages that children were passed on by others, as far as their agents lived to tell. */
  get relayed(): number {
    return this.#children.reduce((sum, child) => sum + child.relayed, 0);
  }

  /** Pages that the parent swept to each child. */
  get swept(): number[] {
    return this.#children.map(({ transfer }) => this.#agent.swept.get(transfer) ?? 0);
  }

  #scene(): Scene {
    const { plan } = this;
    return { plan, guest: this.#guest, agent: this.#agent, children: this.#children, oracle: this.#oracle };
  }

  #isOver(): boolean {
    return this.#agent.over && this.#children.every((child) => child.over);
  }

  #host(name: string): SimulatedHost {
    const known = this.hosts.find((host) => host.name === name);
    if (known !== undefined) return known;
    const host = new SimulatedHost(name, this.scheduler);
    this.hosts.push(host);
    return host;
  }

  #makeGuest(): SimulatedGuest {
    const { plan, scheduler } = this;
    const memory = new SimulatedMemory(scheduler, plan.pages);
    for (let page = 0; page < plan.pages; page += 1)
      if (!this.#random.chance(plan.holes)) memory.place(page, this.#newContent(page));
    const onRun = (): void => {
      for (let writer = 0; writer < plan.writers; writer += 1) this.#parentWrites();
    };
    return new SimulatedGuest({ memory, scheduler, onRun });
  }

  #makeChild(transfer: number): ChildAgent {
    const { plan, scheduler } = this;
    const where = plan.hosts[transfer - 1] ?? "own";
    const host = this.#host(where === "own" ? `host of child ${transfer}` : `${where} host`);
    return new ChildAgent({
      transfer,
      plan,
      host,
      network: this.#network,
      scheduler,
      onRun: (child) => {
        for (let toucher = 0; toucher < plan.touchers; toucher += 1) this.#childTouches(child);
        this.#liftHold(child);
      },
    });
  }

  #scheduleTrouble(): void {
    const { plan, scheduler } = this;
    for (let index = 0; index < plan.breaks; index += 1)
      scheduler.afterUs(this.#random.below(30_000), () => this.#network.breakOne());
    if (plan.cancelAtUs !== undefined) scheduler.afterUs(plan.cancelAtUs, () => this.#abort.abort());
    for (const child of this.#children) this.#liftHold(child);
    for (let index = 0; index < plan.steers; index += 1)
      scheduler.afterUs(this.#random.below(50_000), () => this.#steer());
    for (let index = 0; index < plan.earlyCrashes; index += 1) this.#crashLater();
  }

  /** Most of what can go wrong does so while children run and their memory is incomplete. */
  #scheduleLateCrashes(): void {
    const crashes = this.#told ? 0 : this.plan.lateCrashes;
    if (!this.#told && this.plan.emulatorEnds)
      this.scheduler.afterUs(this.#random.below(30_000), () => this.#endEmulator());
    this.#told = true;
    for (let index = 0; index < crashes; index += 1) this.#crashLater();
  }

  #endEmulator(): void {
    this.#guest.kill();
    this.#guest.memory.end();
  }

  #crashLater(): void {
    const host = this.#random.pick(this.hosts);
    const again = this.#random.below(3);
    if (this.#random.chance(0.5)) this.scheduler.afterUs(this.#random.below(30_000), () => host.crash(again));
    else host.crashAtAct(host.acts + 1 + this.#random.below(this.#random.pick(CRASH_AMONG_ACTS)), again);
  }

  /** An operator changes how fast a transfer is: the slowest rate takes a second for all of its memory. */
  #steer(): void {
    this.#agent.orders.steer(this.#random.pick(this.#children).transfer, {
      rateBytesPerSecond: this.#random.pick([undefined, 250_000, 10_000_000]),
      priority: this.#random.pick(["high", "normal", "low"]),
    });
  }

  /** A held sweep goes on when no processor of the child touches pages any more. */
  #liftHold(child: ChildAgent): void {
    this.scheduler.afterUs(20_000 + this.#random.below(20_000), () => {
      if (this.plan.touchers === 0 || !child.running) this.#agent.orders.sweep(child.transfer);
    });
  }

  async #save(): Promise<void> {
    if (this.#random.chance(this.plan.saveWrites)) await this.#writeOnce();
    this.#oracle = Array.from({ length: this.plan.pages }, (_, page) =>
      Uint8Array.from(this.#guest.memory.content(page)),
    );
  }

  /** New content for a page: mostly such as no page ever had, sometimes zeros. */
  #newContent(page: number): Uint8Array {
    this.#version += 1;
    return contentOf(page, this.#random.chance(0.1) ? 0 : this.#version);
  }

  #writeOnce(): Promise<void> {
    const page = this.#random.below(this.plan.pages);
    return new Promise((resolve) => this.#guest.memory.touch(page, this.#newContent(page), resolve));
  }

  #parentWrites(): void {
    const guest = this.#guest;
    if (!guest.running || this.#isOver()) return;
    const page = this.#random.below(this.plan.pages);
    guest.writing += 1;
    this.#writes += 1;
    guest.memory.touch(page, this.#newContent(page), () => {
      guest.writing -= 1;
      this.#rest(this.#writes / this.plan.writers, () => this.#parentWrites());
    });
  }

  #childTouches(child: ChildAgent): void {
    const { memory } = child;
    if (!child.running || memory === undefined) return;
    const page = this.#nextTouch(child);
    const mine = this.#random.chance(0.4) ? this.#newContent(page) : undefined;
    memory.touch(page, mine, () => {
      if (mine !== undefined) child.own.set(page, mine);
      else checkPage(this.#scene(), child, page);
      child.touches += 1;
      if (!child.over) this.#rest(child.touches / this.plan.touchers, () => this.#childTouches(child));
    });
  }

  /** Every page once, in an order of the seed's; then any page again, and the sweep may go on. */
  #nextTouch(child: ChildAgent): number {
    const { untouched } = child;
    if (untouched.length > 0) return untouched.splice(this.#random.below(untouched.length), 1)[0] as number;
    this.#agent.orders.sweep(child.transfer);
    return this.#random.below(this.plan.pages);
  }

  #rest(turns: number, then: () => void): void {
    const longer = 1 + Math.floor(turns / WRITES_AT_FULL_SPEED) * 4;
    this.scheduler.afterUs(this.#random.below(this.plan.restUs) * longer, then);
  }
}
