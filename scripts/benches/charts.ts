import type { Metric, Metrics } from "./statistics.js";
import type { Chart } from "./svg.js";

type Share = "p50" | "p99" | "p999" | "max";

/** A chart whose values are metrics, found by their names. */
interface Plan {
  name: string;
  title: string;
  across: string;
  unit: string;
  logarithmic: boolean;
  /** Shown name by the part of a metric's name. */
  categories: Readonly<Record<string, string>>;
  /** Only of runs that have measured this too, when other suites have some of the metrics. */
  needs?: string;
  series: readonly { label: string; metric(category: string): string; share?: Share }[];
}

const SIZES = { "256MiB": "256 MiB", "1GiB": "1 GiB", "4GiB": "4 GiB", "8GiB": "8 GiB" };
const RATES = { "1": "1 MiB/s", "30": "30 MiB/s", "300": "300 MiB/s", full: "no limit" };
const RTTS = { "0ms": "0 ms", "1ms": "1 ms", "10ms": "10 ms" };
const CHILDREN = { "1": "1", "2": "2", "4": "4", "8": "8" };
const CHILDREN_HERE = { "1": "1", "4": "4", "16": "16", "32": "32" };
const SWEEPS = { held: "none", swept_slowly: "16 MiB/s", swept: "no limit" };
const SHARES = { p50: "p50", p90: "p90", p99: "p99", p999: "p99.9", max: "max" };

/** Our own way and each of the emulator's, of one measure by a category. */
function againstQemu(measure: string, modes: readonly string[]): Plan["series"] {
  return [
    { label: "Ramet", metric: (category) => `${measure}_${category}` },
    ...modes.map((mode) => ({
      label: `QEMU ${mode}`,
      metric: (category: string) => `${measure}_${category}_qemu_${mode}`,
    })),
  ];
}

const LIVE = ["precopy", "postcopy", "preempt"];

const PLANS: readonly Plan[] = [
  {
    name: "pause-by-memory",
    title: "The parent's pause by its memory",
    across: "guest's memory, of which it writes 85 % as fast as it can",
    unit: "ms",
    logarithmic: true,
    categories: SIZES,
    series: [
      { label: "Ramet p50", metric: (size) => `parent_pause_${size}` },
      { label: "Ramet max", metric: (size) => `parent_pause_${size}`, share: "max" },
      { label: "QEMU snapshot", metric: (size) => `parent_pause_${size}_qemu_snapshot` },
      { label: "QEMU save & load", metric: (size) => `parent_pause_${size}_qemu_savecopyload` },
    ],
  },
  {
    name: "migration-by-memory",
    title: "A migration, from command to last page, p50",
    across: "guest's memory, 60 % populated",
    unit: "ms",
    logarithmic: true,
    categories: SIZES,
    series: againstQemu("migrate_total", LIVE),
  },
  {
    name: "downtime-by-memory",
    title: "Nothing runs during a migration, p50",
    across: "guest's memory, 60 % populated",
    unit: "ms",
    logarithmic: true,
    categories: SIZES,
    series: againstQemu("migrate_downtime", LIVE),
  },
  {
    name: "pause-by-write-rate",
    title: "A fork by how fast the parent writes (1 GiB)",
    across: "the parent's writes",
    unit: "ms, p50",
    logarithmic: true,
    categories: RATES,
    series: [
      { label: "parent's pause", metric: (rate) => `parent_pause_writing_${rate}` },
      { label: "child complete", metric: (rate) => `complete_writing_${rate}` },
    ],
  },
  {
    name: "faults-by-round-trip",
    title: "A child's wait for a page by the network's round trip",
    across: "round trip added by a proxy",
    unit: "µs",
    logarithmic: true,
    categories: RTTS,
    series: [
      { label: "round trip", metric: (rtt) => `round_trip_${rtt}` },
      { label: "fault p50", metric: (rtt) => `fault_rtt_${rtt}` },
      { label: "fault p99", metric: (rtt) => `fault_rtt_${rtt}`, share: "p99" },
    ],
  },
  {
    name: "sweep-by-round-trip",
    title: "The sweep by the network's round trip",
    across: "round trip added by a proxy",
    unit: "MiB/s",
    logarithmic: false,
    categories: RTTS,
    series: [{ label: "sweep p50", metric: (rtt) => `sweep_rate_rtt_${rtt}` }],
  },
  {
    name: "fork-by-children",
    title: "A fork by how many children it makes (256 MiB)",
    across: "children of one instant, on one other host",
    unit: "ms, p50",
    logarithmic: true,
    categories: CHILDREN,
    series: [
      { label: "parent's pause", metric: (count) => `parent_pause_children_${count}` },
      { label: "last one runs", metric: (count) => `first_instruction_children_${count}` },
      { label: "all complete", metric: (count) => `complete_children_${count}` },
    ],
  },
  {
    name: "fanout-by-children",
    title: "Children on their parent's own host, by their number (256 MiB)",
    across: "children of one instant, from warm emulators",
    unit: "ms, p50",
    logarithmic: true,
    categories: CHILDREN_HERE,
    series: [
      { label: "all run", metric: (count) => `fanout_${count}_all_run` },
      { label: "all answered", metric: (count) => `fanout_${count}_all_answer` },
      { label: "frozen, run", metric: (count) => `fanout_${count}_frozen_all_run` },
      { label: "frozen, answered", metric: (count) => `fanout_${count}_frozen_all_answer` },
    ],
  },
  {
    name: "start-by-memory",
    title: "A child's start by its parent's memory",
    across: "guest's memory, 60 % populated",
    unit: "ms, p50",
    logarithmic: true,
    categories: { "256MiB": "256 MiB", "1GiB": "1 GiB", "4GiB": "4 GiB" },
    needs: "first_answer",
    series: [
      { label: "first instruction", metric: (size) => `first_instruction_${size}` },
      { label: "first answer", metric: (size) => `first_answer_${size}` },
    ],
  },
  {
    name: "faults-by-working-set",
    title: "Pages a child waits for until it answers",
    across: "the sweep's rate",
    unit: "pages, p50",
    logarithmic: false,
    categories: SWEEPS,
    series: [
      { label: "without the set", metric: (sweep) => `faults_to_answer_${sweep}_without` },
      { label: "with it", metric: (sweep) => `faults_to_answer_${sweep}_with` },
    ],
  },
];

/** What a guest feels of a page that is not there, by percentile: who waits how long. */
function stallChart(metrics: Readonly<Metrics>): Chart | undefined {
  const found = [
    ["Ramet", "guest_stall"],
    ["QEMU postcopy", "guest_stall_qemu_postcopy"],
    ["QEMU preempt", "guest_stall_qemu_preempt"],
  ].flatMap(([label = "", name = ""]) => {
    const metric = metrics[name];
    return metric === undefined ? [] : [{ label, metric }];
  });
  if (found.length === 0) return undefined;
  return {
    name: "guest-stall",
    title: "A touch of a random page while the guest is moved",
    across: "share of all touches",
    unit: "µs",
    logarithmic: true,
    categories: Object.values(SHARES),
    series: found.map(({ label, metric }) => ({
      label,
      values: (Object.keys(SHARES) as (keyof Metric & Share)[]).map((share) => metric[share]),
    })),
  };
}

function chartOf(
  { series, categories, needs, ...plan }: Plan,
  metrics: Readonly<Metrics>,
): Chart | undefined {
  if (needs !== undefined && metrics[needs] === undefined) return undefined;
  const lines = series
    .map(({ label, metric, share = "p50" }) => ({
      label,
      valueOf: (category: string) => metrics[metric(category)]?.[share],
    }))
    .filter(({ valueOf }) => Object.keys(categories).some((category) => valueOf(category) !== undefined));
  // What nobody measured would be an empty place.
  const measured = Object.keys(categories).filter((category) =>
    lines.some(({ valueOf }) => valueOf(category) !== undefined),
  );
  if (lines.length === 0) return undefined;
  return {
    ...plan,
    categories: measured.map((category) => categories[category] ?? category),
    series: lines.map(({ label, valueOf }) => ({ label, values: measured.map(valueOf) })),
  };
}

/** The charts that can be drawn of some metrics. */
export function chartsOf(metrics: Readonly<Metrics>): Chart[] {
  return [...PLANS.map((plan) => chartOf(plan, metrics)), stallChart(metrics)].filter(
    (chart) => chart !== undefined,
  );
}
