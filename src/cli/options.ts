import { InvalidArgumentError, Option } from "commander";

const UNITS: { [unit: string]: number } = { "": 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3, T: 1024 ** 4 };

/** A parser for a whole number within bounds. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^[0-9]{1,15}$/.test(text) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
  };
}

/** Parses an amount of memory: MiB, or with K, M, G or T what that says. */
export function memoryMiB(text: string): number {
  const mib = sizeOf(text, "M") / UNITS.M!;
  if (Number.isSafeInteger(mib) && mib > 0) return mib;
  throw new InvalidArgumentError("It must be whole MiB, such as 512, 512M or 2G.");
}

/** Parses an amount of bytes, with K, M, G or T for powers of 1024. */
export function sizeBytes(text: string): number {
  const bytes = sizeOf(text, "");
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new InvalidArgumentError("It must be a number of bytes, such as 1048576, 1024K or 1M.");
}

/** Parses a rate as `sizeBytes` does, or `none`, which is 0. */
export function rateOrNone(text: string): number {
  return text === "none" ? 0 : sizeBytes(text);
}

export type Priority = "high" | "normal" | "low";

const DURATIONS: { [unit: string]: number } = {
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

/** Parses a length of time with its unit into milliseconds. */
export function durationMs(text: string): number {
  const match = /^([0-9]{1,9})([smhdw])$/.exec(text);
  if (match) return Number(match[1]) * (DURATIONS[match[2] as string] as number);
  throw new InvalidArgumentError("It must be a number with s, m, h, d or w, such as 12h or 30d.");
}

/** `--priority`, of whatever sends memory. */
export function priorityOption(): Option {
  return new Option(
    "--priority <priority>",
    "beside the other transfers of its host: high, normal (default) or low",
  ).choices(["high", "normal", "low"]);
}

function sizeOf(text: string, defaultUnit: string): number {
  const match = /^([0-9]{1,12}(?:\.[0-9]{1,3})?)([KMGT]?)(?:i?B)?$/i.exec(text);
  const unit = match?.[2]?.toUpperCase();
  return match ? Number(match[1]) * (UNITS[unit || defaultUnit] as number) : Number.NaN;
}

/** Collects a repeatable option whose values may also be separated by commas. */
export function collect(text: string, before: readonly string[] | undefined): string[] {
  const values = text.split(",").filter((part) => part !== "");
  if (values.length === 0) throw new InvalidArgumentError("It must not be empty.");
  return [...(before ?? []), ...values];
}

/** The fields of `fields` that have a value: methods refuse a field that is present and undefined. */
export function given<T extends object>(fields: T): { [Key in keyof T]?: Exclude<T[Key], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never;
}
