const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** Three digits that matter, without needless zeros: 1, 12.3, 1.23, 123. */
function digits(value: number): string {
  const text = value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** An amount of memory or data: `256 MiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < BYTE_UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${digits(value)} ${BYTE_UNITS[unit]}`;
}

/** A rate of data: `12.3 MiB/s`. */
export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`;
}

/** A duration in microseconds: `850 µs`, `1.23 ms`, `2.5 s`, `3 min 5 s`. */
export function formatUs(us: number): string {
  if (us < 1000) return `${digits(us)} µs`;
  if (us < 1_000_000) return `${digits(us / 1000)} ms`;
  if (us < 120_000_000) return `${digits(us / 1_000_000)} s`;
  const seconds = Math.round(us / 1_000_000);
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 2880) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

/** A duration in milliseconds. */
export function formatMs(ms: number): string {
  return formatUs(ms * 1000);
}

/** A share of a whole as a whole number; 100 % only when nothing is missing. */
export function formatShare(part: number, whole: number): string {
  if (whole === 0) return "100 %";
  return `${part >= whole ? 100 : Math.min(99, Math.floor((part * 100) / whole))} %`;
}

/** A wall time as `2023-11-14 22:13:20 UTC`. */
export function formatTime(wallMs: number): string {
  return `${new Date(wallMs).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** `1 page`, `2 pages`. */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
