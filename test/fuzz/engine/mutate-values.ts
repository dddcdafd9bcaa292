import { Packr, Unpackr } from "msgpackr";
import type { SeededRandom } from "../../../src/base/index.js";
import { EDGES, mutateBytes, mutateText, type MutationSources } from "./mutate-bytes.js";

/** A tree of plain values, as JSON and MessagePack carry them. */
interface Notation {
  read(bytes: Uint8Array): unknown;
  write(value: unknown): Buffer;
  hasBytes: boolean;
}

const packr = new Packr({ useRecords: false, moreTypes: false, structuredClone: false });
const unpackr = new Unpackr({
  useRecords: false,
  mapsAsObjects: true,
  moreTypes: false,
  structuredClone: false,
});

export const JSON_NOTATION: Notation = {
  read: (bytes) => JSON.parse(Buffer.from(bytes).toString("utf8")) as unknown,
  write: (value) => Buffer.from(JSON.stringify(value) ?? "null"),
  hasBytes: false,
};

export const MSGPACK_NOTATION: Notation = {
  read: (bytes) => unpackr.unpack(bytes) as unknown,
  write: (value) => Buffer.from(packr.pack(value)),
  hasBytes: true,
};

/** A place in a tree: the container and its key. */
interface Place {
  container: Record<string, unknown>;
  key: string;
}

const MAX_PLACES = 2000;

function placesOf(root: Record<string, unknown>): Place[] {
  const places: Place[] = [];
  const open = [root];
  for (
    let container = open.pop();
    container !== undefined && places.length < MAX_PLACES;
    container = open.pop()
  ) {
    for (const key of Object.keys(container)) {
      places.push({ container, key });
      const value = container[key];
      if (typeof value === "object" && value !== null && !(value instanceof Uint8Array)) {
        open.push(value as Record<string, unknown>);
      }
    }
  }
  return places;
}

function strangeValue(sources: MutationSources, notation: Notation): unknown {
  const { random, words } = sources;
  const choices: (() => unknown)[] = [
    () => random.pick(EDGES),
    () => -random.pick(EDGES),
    () => random.pick(EDGES) + 0.5,
    () => random.pick([2 ** 53, 2 ** 53 + 2, -(2 ** 63), 1e308, 5e-324, 2 ** 64, -0]),
    () => random.pick([null, true, false]),
    () => "",
    () => (words.length === 0 ? "a" : random.pick(words)),
    () => "x".repeat(random.pick(EDGES.slice(0, 32))),
    () => [],
    () => ({}),
    () => Array.from({ length: random.below(70) }, () => random.below(100)),
    () => nested(random.below(40)),
  ];
  if (notation.hasBytes)
    choices.push(() => new Uint8Array(random.pick(EDGES.slice(0, 32))).fill(random.below(256)));
  return random.pick(choices)();
}

function nested(depth: number): unknown {
  let value: unknown = 0;
  for (let level = 0; level < depth; level += 1) value = level % 2 === 0 ? [value] : { a: value };
  return value;
}

/** What the value becomes when it is changed a little; anything else when it has no smaller part. */
function nearby(value: unknown, sources: MutationSources, notation: Notation): unknown {
  const { random } = sources;
  if (typeof value === "number") return random.chance(0.5) ? value + random.below(5) - 2 : random.pick(EDGES);
  if (typeof value === "string") return mutateText(Buffer.from(value), sources).toString("utf8");
  if (value instanceof Uint8Array) return Uint8Array.from(mutateBytes(value, sources));
  if (typeof value === "boolean") return !value;
  return strangeValue(sources, notation);
}

function set(container: Record<string, unknown>, key: string, value: unknown): void {
  Object.defineProperty(container, key, { value, enumerable: true, configurable: true, writable: true });
}

/** Changes one place of the tree, in place. */
function changeTree(root: Record<string, unknown>, sources: MutationSources, notation: Notation): void {
  const { random, words } = sources;
  const places = placesOf(root);
  const place = places.length === 0 ? { container: root, key: "a" } : random.pick(places);
  const { container, key } = place;
  switch (random.below(6)) {
    case 0:
      set(container, key, strangeValue(sources, notation));
      break;
    case 1:
      if (Array.isArray(container)) container.splice(Number(key), 1);
      else delete container[key];
      break;
    case 2:
      set(container, Array.isArray(container) ? key : random.pick(words), container[key]);
      break;
    case 3: {
      const from = random.pick(otherPlaces(sources, notation) ?? [place]);
      if (Array.isArray(container)) container.push(from.container[from.key]);
      else set(container, from.key, from.container[from.key]);
      break;
    }
    default:
      set(container, key, nearby(container[key], sources, notation));
  }
}

function otherPlaces(sources: MutationSources, notation: Notation): Place[] | undefined {
  try {
    const places = placesOf({ root: notation.read(sources.other()) });
    return places.length === 0 ? undefined : places;
  } catch {
    return undefined;
  }
}

/** Changes one to four values of a tree; undefined when the input is no tree, or is one no more. */
export function mutateValues(
  input: Uint8Array,
  sources: MutationSources,
  notation: Notation,
): Buffer | undefined {
  try {
    const root = { root: notation.read(input) };
    for (let times = 1 << sources.random.below(3); times > 0; times -= 1) changeTree(root, sources, notation);
    return notation.write(root.root);
  } catch {
    return undefined;
  }
}

/** Whether this input is to be changed as a tree. */
export function treeTurn(random: SeededRandom): boolean {
  return random.chance(0.7);
}
