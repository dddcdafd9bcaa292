import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Coverage } from "./coverage.js";
import { execute } from "./fuzzer.js";
import type { Target } from "./target.js";

/** The inputs kept in the repository: a directory for each target. */
const CORPUS = fileURLToPath(new URL("../corpus", import.meta.url));

/** An input that once showed a mistake starts with this; it is never thinned out. */
const FOUND_PREFIX = "found-";

/** Most inputs kept for one target, their bytes together, and those of one among them. */
const MAX_KEPT_INPUTS = 48;
const MAX_TARGET_BYTES = 12 * 1024;
const MAX_KEPT_INPUT_BYTES = 2048;

function directoryOf(target: Target): string {
  return join(CORPUS, target.name);
}

function names(target: Target): string[] {
  try {
    return readdirSync(directoryOf(target)).sort();
  } catch {
    return [];
  }
}

/** The inputs kept for a target, by file name. */
export function keptInputs(target: Target): { name: string; input: Buffer }[] {
  return names(target).map((name) => ({ name, input: readFileSync(join(directoryOf(target), name)) }));
}

/** The name of a finding's input: it says what it is, and the same input has the same name. */
export function inputName(input: Uint8Array, prefix = ""): string {
  return `${prefix}${createHash("sha256").update(input).digest("hex").slice(0, 12)}.bin`;
}

/** Shortens an input as far as it keeps its features. */
async function trim(target: Target, coverage: Coverage, input: Buffer): Promise<Buffer> {
  const featuresOf = async (bytes: Buffer) => {
    coverage.reset();
    const { outcome } = await execute(target, bytes);
    return coverage.features(outcome).join();
  };
  const wanted = await featuresOf(input);
  let best = input;
  for (let piece = Math.ceil(best.length / 2); piece >= 1; piece = piece === 1 ? 0 : Math.ceil(piece / 2)) {
    for (let at = 0; at < best.length; at += piece) {
      const shorter = Buffer.concat([best.subarray(0, at), best.subarray(at + piece)]);
      if ((await featuresOf(shorter)) === wanted) best = shorter;
    }
  }
  return best;
}

/** Keeps, of many inputs, short ones that together have every feature, as far as there is room; replaces what was kept. */
export async function keepSmallest(
  target: Target,
  coverage: Coverage,
  inputs: readonly Buffer[],
): Promise<void> {
  const directory = directoryOf(target);
  mkdirSync(directory, { recursive: true });
  for (const name of names(target)) if (!name.startsWith(FOUND_PREFIX)) rmSync(join(directory, name));
  const covered = new Set<string>();
  let keptBytes = 0;
  let kept = 0;
  for (const input of [...inputs].sort((left, right) => left.length - right.length)) {
    if (input.length > MAX_KEPT_INPUT_BYTES || keptBytes + input.length > MAX_TARGET_BYTES) continue;
    coverage.reset();
    const { outcome } = await execute(target, input);
    const features = coverage.features(outcome);
    if (features.every((feature) => covered.has(feature)) || kept >= MAX_KEPT_INPUTS) continue;
    kept += 1;
    for (const feature of features) covered.add(feature);
    const trimmed = await trim(target, coverage, input);
    keptBytes += trimmed.length;
    writeFileSync(join(directory, inputName(trimmed)), trimmed);
  }
}
