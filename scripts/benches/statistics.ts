/** One measured quantity, as it stands in the JSON. */
export interface Metric {
  unit: string;
  p50: number;
  p90: number;
  p99: number;
  max: number;
  n: number;
}

/** The sample below which the given share of all lies (nearest rank). */
function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? 0;
}

/** The percentiles of samples, rounded to three decimals. */
export function metricOf(unit: string, samples: readonly number[]): Metric {
  const sorted = samples.toSorted((left, right) => left - right);
  const rounded = (share: number): number => Number(percentile(sorted, share).toFixed(3));
  return {
    unit,
    p50: rounded(0.5),
    p90: rounded(0.9),
    p99: rounded(0.99),
    max: rounded(1),
    n: samples.length,
  };
}

/** The middle of several runs, percentile by percentile; `n` is the sum. */
export function medianOf(runs: readonly Metric[]): Metric {
  const middle = (of: (run: Metric) => number): number => metricOf("", runs.map(of)).p50;
  return {
    unit: runs[0]?.unit ?? "",
    p50: middle((run) => run.p50),
    p90: middle((run) => run.p90),
    p99: middle((run) => run.p99),
    max: middle((run) => run.max),
    n: runs.reduce((sum, run) => sum + run.n, 0),
  };
}

/** A table for people. */
export function tableOf(metrics: Readonly<Record<string, Metric>>): string {
  const head = ["name", "unit", "p50", "p90", "p99", "max", "n"];
  const rows = Object.entries(metrics).map(([name, metric]) => [
    name,
    metric.unit,
    ...[metric.p50, metric.p90, metric.p99, metric.max].map((value) => value.toFixed(2)),
    String(metric.n),
  ]);
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column]?.length ?? 0)));
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, column) =>
          column < 2 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
        )
        .join("  "),
    )
    .join("\n");
}
