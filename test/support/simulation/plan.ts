import type { SeededRandom } from "../../../src/base/index.js";

/** Chances (0 to 1) and sizes of one simulated run, drawn from its seed unless a scenario names them. */
export interface Plan {
  pages: number;
  children: number;
  migrate: boolean;
  /** A migration copies memory ahead. */
  precopy: boolean;
  holes: number;
  verify: boolean;
  compress: boolean | "auto";
  sweep: boolean;
  copyBudgetPages: number;
  breaks: number;
  dialFails: number;
  startFails: number;
  prepareFails: number;
  saveFails: number;
  answersLost: number;
  cancelAtUs: number | undefined;
  outOfMemoryAfter: number | undefined;
  writers: number;
  /** Longest pause of a writer between two writes. */
  restUs: number;
  bytesPerUs: number;
  maxWindowBytes: number;
  /** Chance of each page to go ahead of the sweep. */
  ahead: number;
  /** Times an operator changes the rate and the priority of a transfer. */
  steers: number;
  /** Chance that saving the device state writes guest memory. */
  saveWrites: number;
  /** Processors of each child. With none, only the sweep and pushes move pages. */
  touchers: number;
  /** Crashes of agents from the beginning on, the further ones of an agent that recovers not counted. */
  earlyCrashes: number;
  /** Crashes of agents from when the first child may run. */
  lateCrashes: number;
  /** The emulator of a fork's parent ends once children may run. */
  emulatorEnds: boolean;
  /** For each child, whether its host is the parent's, one that it shares with others, or its own. */
  hosts: ("parent's" | "shared" | "own")[];
  /** Another thread of each agent has the urgent lanes and serves touches; without it, the machines do so themselves. */
  threads: boolean;
  /** For each child of a fork, the child that passes on to it what it is given; that comes before it, if there is one. */
  relays: (number | undefined)[];
}

/** Draws a plan from a seed. */
export function planOf(random: SeededRandom): Plan {
  const harsh = random.chance(0.6);
  const migrate = random.chance(0.3);
  return {
    pages: 1 + random.below(60),
    children: migrate ? 1 : 1 + random.below(3),
    migrate,
    precopy: migrate && random.chance(0.5),
    holes: random.pick([0, 0.2, 0.9]),
    verify: random.chance(0.5),
    compress: random.pick([true, false, "auto"] as const),
    sweep: random.chance(0.6),
    copyBudgetPages: 1 + random.below(20),
    breaks: harsh ? random.below(5) : 0,
    dialFails: harsh ? 0.2 : 0,
    startFails: random.chance(0.1) ? 0.5 : 0,
    prepareFails: random.chance(0.05) ? 0.5 : 0,
    saveFails: random.chance(0.05) ? 1 : 0,
    answersLost: random.chance(0.1) ? 0.5 : 0,
    cancelAtUs: random.chance(0.1) ? random.below(20_000) : undefined,
    outOfMemoryAfter: random.chance(0.04) ? random.below(40) : undefined,
    writers: 1 + random.below(3),
    restUs: random.pick([50, 500]),
    bytesPerUs: random.pick([2000, 100, 10]),
    maxWindowBytes: random.pick([4096, 64 * 1024, 4 * 1024 * 1024]),
    ahead: random.pick([0, 0.3, 1]),
    steers: random.pick([0, 0, 5]),
    saveWrites: random.chance(0.2) ? 0.8 : 0,
    touchers: random.pick([0, 1, 2]),
    earlyCrashes: random.chance(0.2) ? 1 + random.below(2) : 0,
    lateCrashes: random.chance(0.5) ? 1 + random.below(4) : 0,
    emulatorEnds: !migrate && random.chance(0.15),
    hosts: [1, 2, 3].map(() => random.pick(["parent's", "shared", "shared", "own", "own"])),
    threads: random.chance(0.7),
    relays: [undefined, random.pick([0, 0, undefined]), random.pick([0, 1, 1, undefined])],
  };
}

/** Nothing goes wrong by itself in a small transfer, so that a crash at each of its acts is the only thing that does. */
const SMALL: Partial<Plan> = {
  pages: 6,
  children: 1,
  migrate: false,
  precopy: false,
  holes: 0.2,
  copyBudgetPages: 2,
  breaks: 0,
  dialFails: 0,
  startFails: 0,
  prepareFails: 0,
  saveFails: 0,
  answersLost: 0,
  cancelAtUs: undefined,
  outOfMemoryAfter: undefined,
  steers: 0,
  writers: 1,
  earlyCrashes: 0,
  lateCrashes: 0,
  emulatorEnds: false,
  hosts: ["own", "own"],
  relays: [],
};

/** Small transfers of every kind. What is not named is the seed's. */
export const SMALL_PLANS: readonly Partial<Plan>[] = [
  { ...SMALL, verify: true, touchers: 1 },
  { ...SMALL, verify: true, migrate: true, touchers: 1 },
  { ...SMALL, verify: false, holes: 0.6 },
  { ...SMALL, children: 2 },
  { ...SMALL, migrate: true, verify: false, holes: 0.6, sweep: false },
  { ...SMALL, hosts: ["parent's"], touchers: 1 },
  { ...SMALL, children: 2, hosts: ["shared", "shared"] },
  { ...SMALL, children: 2, relays: [undefined, 0], verify: true, sweep: true },
  { ...SMALL, emulatorEnds: true, verify: true, touchers: 1 },
];
