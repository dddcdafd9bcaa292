import { InvalidArgumentError } from "commander";
import type { ParamsInput } from "../control/index.js";
import { given, sizeBytes, wholeNumber } from "./options.js";

/** A disk as `guest.run` takes it. */
export type RunDisk = NonNullable<ParamsInput<"guest.run">["disks"]>[number];

const MAX_RATE = 1_000_000_000;

export const DISK_HELP = `
A disk is made of parts with commas between them:
  image:REFERENCE         over a base disk (ramet image list), by its identifier or digest
  from=HOST               the base disk that HOST calls so; the guest runs while it comes from there
  size=SIZE               a blank disk, or a larger one than what it stands on: 512M, 20G
  parent=UUID             over a differencing disk of the host (ramet disk list), which is never written again
  differencing=on|off     a differencing disk over it (the default), or all of it copied before the guest runs
  cache=writeback|none    through the host's page cache (the default), or past it
  iops=N, bps=SIZE        at the most so many requests, or bytes, a second
`;

/** A parser for one part's value; what it throws says what is wrong. */
type Part = (value: string) => Partial<RunDisk>;

const PARTS: Readonly<Record<string, Part>> = {
  image: (value) => ({ image: value }),
  from: (value) => ({ from: value }),
  size: (value) => ({ sizeBytes: sizeBytes(value) }),
  parent: (value) => ({ parent: value }),
  differencing(value) {
    if (value !== "on" && value !== "off") throw new InvalidArgumentError("differencing must be on or off.");
    return { differencing: value === "on" };
  },
  cache(value) {
    if (value !== "writeback" && value !== "none")
      throw new InvalidArgumentError("cache must be writeback or none.");
    return { cache: value };
  },
  iops: (value) => ({ iops: wholeNumber(10, MAX_RATE)(value) }),
  bps: (value) => ({ bps: sizeBytes(value) }),
};

/** Reads one disk, as people write it. */
export function parseDisk(text: string): RunDisk {
  let disk: Partial<RunDisk> = {};
  const seen = new Set<string>();
  for (const part of text.split(",")) {
    const [, name = "", value = ""] = /^([a-z]+)[=:](.+)$/.exec(part) ?? [];
    const parse = PARTS[name];
    if (parse === undefined || part[name.length] !== (name === "image" ? ":" : "="))
      throw new InvalidArgumentError(
        `"${part}" is no part of a disk; those are ${Object.keys(PARTS).join(", ")}.`,
      );
    if (seen.has(name)) throw new InvalidArgumentError(`${name} is given twice.`);
    seen.add(name);
    disk = { ...disk, ...parse(value) };
  }
  return given(disk);
}

/** Collects a repeatable option, each of whose values is one disk. */
export function collectDisk(text: string, before: readonly RunDisk[] | undefined): RunDisk[] {
  return [...(before ?? []), parseDisk(text)];
}
