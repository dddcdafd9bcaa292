import type { SeededRandom } from "../../../src/base/index.js";

/** Numbers at which lengths, counts and signs go wrong. */
export const EDGES: readonly number[] = [
  0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 63, 64, 65, 100, 127, 128, 129, 255, 256, 257, 299, 300, 301, 511,
  512, 513, 999, 1000, 1001, 1024, 4095, 4096, 4097, 32767, 32768, 65535, 65536, 262143, 262144, 1048575,
  1048576, 4194304, 16777215, 268435456, 2147483647, 2147483648, 4294967294, 4294967295,
];

/** What mutations may take from besides chance. */
export interface MutationSources {
  random: SeededRandom;
  words: readonly string[];
  /** Another input that was found worth keeping. */
  other(): Uint8Array;
}

type Mutation = (bytes: Buffer, sources: MutationSources) => Buffer;

function slice(bytes: Buffer, random: SeededRandom): { from: number; to: number } {
  const from = random.below(bytes.length + 1);
  const most = random.chance(0.8) ? 16 : bytes.length;
  return { from, to: Math.min(bytes.length, from + 1 + random.below(most)) };
}

function insert(bytes: Buffer, at: number, what: Uint8Array): Buffer {
  return Buffer.concat([bytes.subarray(0, at), what, bytes.subarray(at)]);
}

/** Writes over what is there as far as it reaches. */
function overwrite(bytes: Buffer, at: number, what: Uint8Array): Buffer {
  bytes.set(what.subarray(0, Math.max(0, bytes.length - at)), at);
  return bytes;
}

function word({ words, random }: MutationSources): Buffer {
  return Buffer.from(words.length === 0 ? "0" : random.pick(words));
}

function number(random: SeededRandom): Buffer {
  const bytes = Buffer.alloc(4);
  const value = random.pick(EDGES);
  if (random.chance(0.5)) bytes.writeUInt32BE(value);
  else bytes.writeUInt32LE(value);
  const width = random.pick([1, 2, 4]);
  return random.chance(0.5) ? bytes.subarray(4 - width) : bytes.subarray(0, width);
}

const MUTATIONS: readonly Mutation[] = [
  (bytes, { random }) => {
    if (bytes.length === 0) return bytes;
    const at = random.below(bytes.length);
    bytes[at] = (bytes[at] as number) ^ (1 << random.below(8));
    return bytes;
  },
  (bytes, { random }) => overwrite(bytes, random.below(bytes.length + 1), Buffer.from([random.below(256)])),
  (bytes, { random }) => {
    if (bytes.length === 0) return bytes;
    const at = random.below(bytes.length);
    bytes[at] = ((bytes[at] as number) + random.below(9) - 4) & 0xff;
    return bytes;
  },
  (bytes, { random }) => overwrite(bytes, random.below(bytes.length + 1), number(random)),
  (bytes, { random }) => insert(bytes, random.below(bytes.length + 1), number(random)),
  (bytes, { random }) => {
    const { from, to } = slice(bytes, random);
    return Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)]);
  },
  (bytes, { random }) => {
    const { from, to } = slice(bytes, random);
    const times = random.chance(0.9) ? 1 : 1 + random.below(64);
    const piece = bytes.subarray(from, to);
    return insert(bytes, to, Buffer.concat(Array<Buffer>(times).fill(piece)));
  },
  (bytes, { random }) => {
    const { from, to } = slice(bytes, random);
    return overwrite(bytes, random.below(bytes.length + 1), Buffer.from(bytes.subarray(from, to)));
  },
  (bytes, sources) => insert(bytes, sources.random.below(bytes.length + 1), word(sources)),
  (bytes, sources) => overwrite(bytes, sources.random.below(bytes.length + 1), word(sources)),
  (bytes, { random, other }) => {
    const second = Buffer.from(other());
    const { from, to } = slice(second, random);
    return insert(bytes, random.below(bytes.length + 1), second.subarray(from, to));
  },
  (bytes, { random, other }) => {
    const second = other();
    return Buffer.concat([
      bytes.subarray(0, random.below(bytes.length + 1)),
      second.subarray(random.below(second.length + 1)),
    ]);
  },
];

/** The input changed in one to eight ways. */
export function mutateBytes(input: Uint8Array, sources: MutationSources): Buffer {
  let bytes = Buffer.from(input);
  for (let times = 1 << sources.random.below(4); times > 0; times -= 1) {
    bytes = sources.random.pick(MUTATIONS)(bytes, sources) as Buffer<ArrayBuffer>;
  }
  return bytes;
}

const TEXT_PIECES = [
  ..." .:/,-_=%@#?&[]{}()\"'\\\0\n\r\t\u007f",
  "\u00e9",
  "\u{1f600}",
  "\ufeff",
  "\u0130",
  "\ud800",
  "0x",
  "1e9",
  "-1",
  "..",
  "//",
  "__proto__",
];

/** As `mutateBytes`, in steps of characters: digits, separators and words. */
export function mutateText(input: Uint8Array, sources: MutationSources): Buffer {
  const { random } = sources;
  let text = Buffer.from(input).toString("utf8");
  for (let times = 1 << random.below(3); times > 0; times -= 1) {
    const at = random.below(text.length + 1);
    const rest = text.slice(at);
    switch (random.below(5)) {
      case 0:
        text = text.slice(0, at) + random.pick(TEXT_PIECES) + rest;
        break;
      case 1:
        text = text.slice(0, at) + word(sources).toString() + rest;
        break;
      case 2:
        text = text.slice(0, at) + rest.slice(1 + random.below(4));
        break;
      case 3:
        text = text.slice(0, at) + rest.replace(/[0-9]+/, String(random.pick(EDGES)));
        break;
      default:
        text =
          text.slice(0, at) +
          Buffer.from(sources.other())
            .toString("utf8")
            .slice(-1 - random.below(12)) +
          rest;
    }
  }
  return Buffer.from(text);
}
