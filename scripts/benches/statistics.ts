/** One measured quantity, as it stands in the JSON. */
export interface Metric {
  unit: string;
  p50: number;
  p90: number;
  p99: number;
  /** Only of a thousand samples and more. */
  p999?: number;
  max: number;
  n: number;
}

export type Metrics = Record<string, Metric>;

/** A value and how many samples had it, or at most it. */
export type Bucket = readonly [value: number, count: number];

/** The unit of ratios. */
const RATIO = "×";
export const MIN_SAMPLES_FOR_P999 = 1000;

function rounded(value: number): number {
  return Number(value.toFixed(3));
}

/** The percentiles of samples that are counted by value (nearest rank), rounded to three decimals. All are 0 when there are none. */
export function metricOfBuckets(unit: string, buckets: readonly Bucket[], max?: number): Metric {
  const sorted = buckets.filter(([, count]) => count > 0).toSorted(([left], [right]) => left - right);
  const n = sorted.reduce((sum, [, count]) => sum + count, 0);
  const largest = max ?? sorted.at(-1)?.[0] ?? 0;
  const percentile = (share: number): number => {
    let seen = 0;
    for (const [value, count] of sorted) {
      seen += count;
      // What 0.99 * n should be is often a little more than it in binary.
      if (seen >= share * n - 1e-9) return rounded(Math.min(value, largest));
    }
    return 0;
  };
  return {
    unit,
    p50: percentile(0.5),
    p90: percentile(0.9),
    p99: percentile(0.99),
    ...(n < MIN_SAMPLES_FOR_P999 ? {} : { p999: percentile(0.999) }),
    max: rounded(largest),
    n,
  };
}

/** The percentiles of samples. */
export function metricOf(unit: string, samples: readonly number[]): Metric {
  return metricOfBuckets(
    unit,
    samples.map((value) => [value, 1]),
  );
}

/** The middle of several runs, percentile by percentile; `n` is the sum. */
export function medianOf(runs: readonly Metric[]): Metric {
  const middle = (of: (run: Metric) => number): number => metricOf("", runs.map(of)).p50;
  const hasP999 = runs.length > 0 && runs.every(({ p999 }) => p999 !== undefined);
  return {
    unit: runs[0]?.unit ?? "",
    p50: middle((run) => run.p50),
    p90: middle((run) => run.p90),
    p99: middle((run) => run.p99),
    ...(hasP999 ? { p999: middle((run) => run.p999 ?? 0) } : {}),
    max: middle((run) => run.max),
    n: runs.reduce((sum, run) => sum + run.n, 0),
  };
}

/** What one is of the other, percentile by percentile; `n` is the smaller one. */
function ratioOf(ours: Metric, theirs: Metric): Metric {
  const quotient = (of: (metric: Metric) => number): number =>
    of(theirs) === 0 ? 0 : rounded(of(ours) / of(theirs));
  return {
    unit: RATIO,
    p50: quotient((metric) => metric.p50),
    p90: quotient((metric) => metric.p90),
    p99: quotient((metric) => metric.p99),
    ...(ours.p999 === undefined || theirs.p999 === undefined
      ? {}
      : { p999: quotient((metric) => metric.p999 ?? 0) }),
    max: quotient((metric) => metric.max),
    n: Math.min(ours.n, theirs.n),
  };
}

/** The same with `X_ratio_MODE` behind each `X_qemu_MODE`, or `X_after_MODE`, that has an `X` beside it: ours by theirs. */
export function withRatios(metrics: Readonly<Metrics>): Metrics {
  return Object.fromEntries(
    Object.entries(metrics).flatMap(([name, theirs]) => {
      const [, base = "", mode = ""] = /^(.+)_(?:qemu|after)_([a-z_]+)$/.exec(name) ?? [];
      const ours = metrics[base];
      return ours === undefined
        ? [[name, theirs]]
        : [
            [name, theirs],
            [`${base}_ratio_${mode}`, ratioOf(ours, theirs)],
          ];
    }),
  );
}

/** Collects what a suite measures, in the order in which names are first seen. */
export class Results {
  readonly #samples = new Map<string, { unit: string; values: number[] } | Metric>();

  /** Adds one sample. */
  add(name: string, unit: string, value: number): void {
    const samples = this.#samples.get(name) ?? { unit, values: [] };
    if (!("values" in samples)) throw new Error(`${name} was set already`);
    if (!Number.isFinite(value)) throw new Error(`${name}: ${value} is not a measurement`);
    samples.values.push(value);
    this.#samples.set(name, samples);
  }

  /** Sets a metric that was computed from something else than samples. */
  set(name: string, metric: Metric): void {
    this.#samples.set(name, metric);
  }

  /** All of them, with the ratios. */
  get metrics(): Metrics {
    const entries = [...this.#samples].map(([name, found]): [string, Metric] => [
      name,
      "values" in found ? metricOf(found.unit, found.values) : found,
    ]);
    return withRatios(Object.fromEntries(entries));
  }
}

const HEAD = ["name", "unit", "p50", "p90", "p99", "p99.9", "max", "n"];

function rowsOf(metrics: Readonly<Metrics>): string[][] {
  const shown = (value: number | undefined): string =>
    value === undefined ? "–" : value.toFixed(value > 0 && value < 1 ? 3 : 2);
  return Object.entries(metrics).map(([name, { unit, p50, p90, p99, p999, max, n }]) => [
    name,
    unit,
    ...[p50, p90, p99, p999, max].map(shown),
    String(n),
  ]);
}

/** A table for people. */
export function tableOf(metrics: Readonly<Metrics>): string {
  const lines = [HEAD, ...rowsOf(metrics)];
  const widths = HEAD.map((_, column) => Math.max(...lines.map((row) => row[column]?.length ?? 0)));
  const align = (cell: string, column: number): string =>
    column < 2 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0);
  return lines.map((row) => row.map(align).join("  ")).join("\n");
}

/** The same table for a document. */
export function markdownOf(metrics: Readonly<Metrics>): string {
  const rule = HEAD.map((_, column) => (column < 2 ? "---" : "--:"));
  const rows = rowsOf(metrics).map(([name, ...cells]) => [`\`${name}\``, ...cells]);
  return [HEAD, rule, ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");
}
