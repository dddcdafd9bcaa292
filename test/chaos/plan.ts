import { SeededRandom } from "../../src/base/index.js";

/** Moments of a fork or migration at which a fault is injected. `idle`: none is under way. */
export const STATES = [
  "idle",
  "preparing",
  "precopying",
  "arming",
  "pausing",
  "starting",
  "faulting",
  "sweeping",
  "late",
  "complete",
] as const;
export type State = (typeof STATES)[number];

/**
 * What is under way: one child on another host, two on both others that pass on to each other, one on the same host, which is sent its memory or shares it, or a
 * migration, at once or after a pre-copy.
 */
export const OPERATIONS = ["fork", "fork-two", "fork-here", "fork-shared", "migrate", "precopy"] as const;
export type Operation = (typeof OPERATIONS)[number];

/** Whether all of it is on one host. */
export function isLocal(operation: Operation): boolean {
  return operation === "fork-here" || operation === "fork-shared";
}

export function isMigration(operation: Operation): boolean {
  return operation === "migrate" || operation === "precopy";
}

export const FAULTS = [
  "cut-one",
  "cut-all",
  "partition",
  "stall",
  "swallow",
  "delay",
  "throttle",
  "truncate",
  "freeze-parent-agent",
  "freeze-child-agent",
  "freeze-for-long",
  "kill-parent-agent",
  "kill-child-agent",
  "restart-parent-agent",
  "restart-child-agent",
  "kill-parent-emulator",
  "kill-child-emulator",
  "kill-warm-emulator",
  "fill-parent-memory",
  "fill-child-memory",
  "fill-parent-disk",
  "fill-child-disk",
] as const;
export type FaultName = (typeof FAULTS)[number];

/** One injection, as decided by the seed before anything runs. */
export interface Plan {
  index: number;
  fault: FaultName;
  state: State;
  operation: Operation;
  /** For what the fault itself leaves open: which connection, how long. */
  seed: number;
}

/** Faults of the network between hosts, which a fork on one host does not use. */
const BETWEEN_HOSTS = new Set<FaultName>([
  "cut-one",
  "cut-all",
  "partition",
  "stall",
  "swallow",
  "delay",
  "throttle",
  "truncate",
]);

/** A warm emulator is taken while the child is prepared, and of no interest afterwards. */
const WARM_STATES = new Set<State>(["idle", "preparing"]);
/** States in which somebody waits for the other agent with a deadline, or for ever. */
const WAITING_STATES = new Set<State>(["pausing", "starting", "faulting"]);
/** The emulator of the child is there from its preparation on. */
const CHILDLESS_STATES = new Set<State>(["idle", "preparing"]);

function makesSense(fault: FaultName, state: State, operation: Operation): boolean {
  if (state === "precopying" && operation !== "precopy") return false;
  if (fault === "kill-warm-emulator") return WARM_STATES.has(state) && operation === "fork";
  if (fault === "freeze-for-long") return WAITING_STATES.has(state) && !isLocal(operation);
  if (fault === "kill-child-emulator" && CHILDLESS_STATES.has(state)) return false;
  // A child that shares memory has all of it when it runs.
  if (operation === "fork-shared" && ["sweeping", "late"].includes(state)) return false;
  if (isLocal(operation)) return !BETWEEN_HOSTS.has(fault) && !fault.includes("child-agent");
  return true;
}

/** Each fault in each state it makes sense in, in an order of the seed, then all over again with other operations. */
export function planOf(options: { seed: number; injections: number; only?: RegExp }): Plan[] {
  const random = new SeededRandom(options.seed);
  const cells = FAULTS.flatMap((fault) => STATES.map((state) => ({ fault, state })));
  const plans: Plan[] = [];
  const mayRun = cells.some(({ fault, state }) =>
    OPERATIONS.some((operation) => isWanted({ fault, state, operation }, options.only)),
  );
  if (!mayRun) throw new Error(`no injection is named by ${String(options.only)}`);
  for (let index = 0; plans.length < options.injections;) {
    for (const { fault, state } of shuffled(cells, random)) {
      const operations = OPERATIONS.filter((operation) => makesSense(fault, state, operation));
      // A number is drawn for each cell, wanted or not, so that an injection is the same one however many others are left out.
      const seed = random.below(2 ** 31);
      const operation = operations.length === 0 ? undefined : random.pick(operations);
      if (operation === undefined) continue;
      index += 1;
      if (!isWanted({ fault, state, operation }, options.only) || plans.length >= options.injections)
        continue;
      plans.push({ index, fault, state, operation, seed });
    }
  }
  return plans;
}

/** The injections of these names, in their order. @throws Error when one is none. */
export function plansNamed(options: { seed: number; names: readonly string[] }): Plan[] {
  const random = new SeededRandom(options.seed);
  return options.names.map((name, index) => {
    const [first, second, third] = name.split("/");
    const fault = FAULTS.find((candidate) => candidate === first);
    const state = STATES.find((candidate) => candidate === second);
    const operation = OPERATIONS.find((candidate) => candidate === third);
    if (fault === undefined || state === undefined || operation === undefined)
      throw new Error(`${name} is not FAULT/STATE/OPERATION`);
    if (!makesSense(fault, state, operation)) throw new Error(`${name} makes no sense`);
    return { index: index + 1, fault, state, operation, seed: random.below(2 ** 31) };
  });
}

/** The name of a plan, as `--only` matches it. */
export function nameOf(plan: Pick<Plan, "fault" | "state" | "operation">): string {
  return `${plan.fault}/${plan.state}/${plan.operation}`;
}

function isWanted(plan: Pick<Plan, "fault" | "state" | "operation">, only: RegExp | undefined): boolean {
  return makesSense(plan.fault, plan.state, plan.operation) && (only?.test(nameOf(plan)) ?? true);
}

function shuffled<T>(items: readonly T[], random: SeededRandom): T[] {
  const order = [...items];
  for (let last = order.length - 1; last > 0; last -= 1) {
    const other = random.below(last + 1);
    [order[last], order[other]] = [order[other] as T, order[last] as T];
  }
  return order;
}
