import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "node:util";
import { MemoryError } from "../../../src/memory/errors.js";
import { findMapping, findRegistration } from "../../../src/memory/mapping.js";
import { ERRNO, loadNative, type Native, type Watcher } from "../../../src/memory/native.js";
import { orRefusal, type Target } from "../engine/target.js";
import { MAPS } from "./guest-samples.js";
import { scratchDirectory } from "./scratch.js";

const SMALL_BYTES = 1024 * 1024;
const FILE = { dev: 0x1b, ino: 113, pageCount: 0x200 };

/** /proc/PID/maps and smaps. */
export const memoryMaps: Target = {
  name: "memory-maps",
  covers: ["src/memory/mapping.ts"],
  format: "text",
  maxInputBytes: 4096,
  allocationBytes: (inputBytes) => SMALL_BYTES + inputBytes * 256,
  *seeds() {
    yield Buffer.from(MAPS);
    yield Buffer.from(MAPS.replaceAll("rw-s", "rw-p"));
    yield Buffer.from(`${MAPS}VmFlags: rd wr sh mr mw me ms um \n`);
    yield Buffer.from(`${MAPS}VmFlags: rd wr sh mr mw me ms uw \n`);
  },
  run(input) {
    const text = input.toString("utf8");
    const registration = findRegistration(text, FILE);
    return orRefusal(MemoryError, () => {
      const { address, areaEnds } = findMapping(text, FILE);
      assert.ok(Number.isInteger(address) && address >= 0);
      assert.equal(areaEnds.at(-1), FILE.pageCount);
      assert.ok(areaEnds.every((end, index) => index === 0 || end >= (areaEnds[index - 1] as number)));
      return `mapped ${areaEnds.length} ${registration}`;
    });
  },
};

/** How the addon is called: how many arguments, how many of them numbers, the first of those a descriptor or pid. */
const CALLS: {
  [Name in keyof Native]: { numbers: number; more: readonly ("bytes" | "doubles" | "function")[] };
} = {
  create: { numbers: 1, more: [] },
  handshake: { numbers: 2, more: [] },
  register: { numbers: 4, more: [] },
  unregister: { numbers: 3, more: [] },
  writeProtect: { numbers: 4, more: [] },
  copy: { numbers: 4, more: ["bytes"] },
  zeroPage: { numbers: 3, more: [] },
  wake: { numbers: 3, more: [] },
  openProcess: { numbers: 1, more: [] },
  takeDescriptor: { numbers: 2, more: [] },
  seek: { numbers: 3, more: [] },
  punch: { numbers: 3, more: [] },
  makePipe: { numbers: 0, more: [] },
  resizePipe: { numbers: 2, more: [] },
  separate: { numbers: 3, more: [] },
  openTap: { numbers: 0, more: [] },
  protectAside: { numbers: 5, more: ["function"] },
  watch: { numbers: 1, more: ["doubles", "function"] },
  unwatch: { numbers: 0, more: [] },
  shutDown: { numbers: 1, more: [] },
};
const NAMES = Object.keys(CALLS) as (keyof Native)[];

/** Calls whose result is a new descriptor. */
const OPENING: readonly string[] = ["create", "openProcess", "takeDescriptor", "openTap"];

function detached(kind: typeof Uint8Array | typeof Float64Array = Uint8Array): Uint8Array | Float64Array {
  const array = new kind(512);
  transferAway(array);
  return array;
}

function transferAway({ buffer }: Uint8Array | Float64Array): void {
  if (buffer instanceof ArrayBuffer) structuredClone(buffer, { transfer: [buffer] });
}

/** Descriptors that nothing breaks by: a userfaultfd of our own, a file, a device. Opened once for all inputs. */
let descriptors: number[] | undefined;

/** A pipe in a userfaultfd's place: reading it gives whatever was written. */
let faults = -1;

function makePipe(): number {
  const path = join(scratchDirectory(), "faults");
  execFileSync("mkfifo", [path]);
  return openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
}

/** Three messages of page faults, as linux/userfaultfd.h has them, and a piece of a fourth. */
const FAULT_MESSAGES = Buffer.concat([
  ...[1, 2, 3].map((page) => {
    const message = Buffer.alloc(32);
    message.writeUInt8(0x12, 0);
    message.writeBigUInt64LE(BigInt(page * 4096), 16);
    return message;
  }),
  Buffer.alloc(5, 0x12),
]);

/** Puts faults in the place of what nobody has read. */
function raiseFaults(): void {
  const rest = Buffer.alloc(65536);
  try {
    readSync(faults, rest);
  } catch {
    // There was nothing.
  }
  writeSync(faults, FAULT_MESSAGES);
}

/** Lets the event loop look at descriptors: once round it from wherever it is now. */
async function goRound(): Promise<void> {
  for (let turn = 0; turn < 2; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

function openDescriptors(): number[] {
  const native = loadNative();
  const device = openSync("/dev/null", "r");
  const uffd = native.create(device);
  const flags = constants.O_RDWR | constants.O_CREAT;
  const file = openSync(join(scratchDirectory(), "file"), flags, 0o600);
  writeSync(file, Buffer.alloc(8192));
  faults = makePipe();
  return [device, ...(uffd < 0 ? [] : [uffd]), file, faults];
}

const NUMBERS: readonly number[] = [
  0,
  1,
  -1,
  2,
  3,
  4095,
  4096,
  8192,
  0.5,
  -0.5,
  -0,
  255,
  65536,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32,
  2 ** 52,
  2 ** 53,
  2 ** 63,
  2 ** 64,
  -(2 ** 31),
  -(2 ** 31) - 1,
  -(2 ** 53),
  1e300,
  -1e300,
  NaN,
  Infinity,
  -Infinity,
  1e-300,
];

/** What the watchers of the input being run have told. */
let told: number[] = [];

const watched = () => new Float64Array(4);
const onFaults = () => (count: number) => void told.push(count);

const OTHERS: readonly (() => unknown)[] = [
  watched,
  onFaults,
  () => undefined,
  () => null,
  () => true,
  () => "4096",
  () => "",
  () => 5n,
  () => Symbol("s"),
  () => ({}),
  () => [],
  () => [1, 2, 3],
  () => ({ valueOf: () => 4096 }),
  () => ({
    valueOf: () => {
      throw new RangeError("from valueOf");
    },
  }),
  () => new Date(0),
  () => new Proxy({}, {}),
  () => new Proxy(() => {}, {}),
  () => () => {},
  () => new Uint8Array(4096),
  () => new Uint8Array(0),
  () => new Uint8Array(8).subarray(3, 5),
  () => Buffer.alloc(100),
  () => new Uint8ClampedArray(4096),
  () => new Float64Array(256),
  () => new Float64Array(257),
  () => new Float64Array(0),
  () => new Float32Array(4),
  () => new BigInt64Array(4),
  () => new DataView(new ArrayBuffer(64)),
  () => new ArrayBuffer(64),
  () => new SharedArrayBuffer(64),
  () => new Uint8Array(new SharedArrayBuffer(4096)),
  () => new Float64Array(new SharedArrayBuffer(64)),
  () => detached(),
  () => detached(Float64Array),
];

/** Whether an argument is one the addon has to take. */
function isNumber(value: unknown, index: number): boolean {
  if (typeof value !== "number" || !Number.isInteger(value)) return false;
  return index === 0
    ? value >= -(2 ** 31) && value < 2 ** 31
    : value >= 0 && value <= Number.MAX_SAFE_INTEGER;
}

/** Calls as an input says: a byte for the method, a byte for each argument. */
async function callAll(input: Buffer): Promise<string> {
  const native = loadNative();
  descriptors ??= openDescriptors();
  const opened: number[] = [];
  const watchers: Watcher[] = [];
  const arrays: Float64Array[] = [];
  const outcomes: string[] = [];
  let at = 0;
  told = [];
  const argument = (choice: number): unknown => {
    if (choice < 64) return descriptors?.[choice % (descriptors.length || 1)];
    if (choice < 160) return NUMBERS[choice % NUMBERS.length];
    if (choice >= 250 && watchers.length > 0) return watchers[0];
    const other = OTHERS[choice % OTHERS.length]?.();
    if (other instanceof Float64Array) arrays.push(other);
    return other;
  };
  try {
    while (at < input.length && outcomes.length < 16) {
      const name = NAMES[(input[at++] as number) % NAMES.length] as keyof Native;
      const { numbers, more } = CALLS[name];
      const given = (input[at++] ?? 0) % 8;
      const wanted = name === "unwatch" ? 1 : numbers + more.length;
      const args = Array.from({ length: given < 6 ? wanted : given - 2 }, () => argument(input[at++] ?? 0));
      outcomes.push(`${name} ${callOne({ native, name, args, opened, watchers })}`);
    }
  } finally {
    if (watchers.length > 0) {
      raiseFaults();
      // Some arrays are given away while they are watched.
      if (input.length % 2 === 1) for (const array of arrays) transferAway(array);
      await goRound();
      for (const watcher of watchers) native.unwatch(watcher);
      await goRound();
    }
    for (const fd of opened) closeSync(fd);
  }
  for (const count of told) assert.ok(count === -ERRNO.EFAULT || (count >= 1 && count <= 4));
  return [...outcomes.slice(0, 2), ...told].join();
}

function callOne(call: {
  native: Native;
  name: keyof Native;
  args: unknown[];
  opened: number[];
  watchers: Watcher[];
}): string {
  const { native, name, args } = call;
  const { numbers } = CALLS[name];
  // What it tells comes from another thread, some time.
  if (name === "protectAside")
    args.forEach((value, at) => typeof value === "function" && (args[at] = () => {}));
  // A socket of the fuzzer's own, as its output may be, is not to be ended.
  if (name === "shutDown" && isNumber(args[0], 0) && descriptors?.includes(args[0] as number) !== true)
    args[0] = -1;
  const sound = args.length >= numbers && args.slice(0, numbers).every(isNumber);
  let result: unknown;
  try {
    result = (native[name] as (...values: unknown[]) => unknown)(...args);
  } catch (error) {
    assert.ok(error instanceof TypeError || error instanceof RangeError, String(error));
    return "refused";
  }
  assert.ok(sound, `${name} took ${inspect(args, { depth: 0, maxArrayLength: 6 })}`);
  if (name === "unwatch") return "done";
  if (name === "protectAside" && typeof result === "function") {
    (result as () => void)();
    return "begun";
  }
  if (name === "watch" && typeof result === "object") {
    call.watchers.push(result as Watcher);
    return "watcher";
  }
  assert.ok(typeof result === "number" && Number.isInteger(result), `${name} returned ${String(result)}`);
  if (result >= 0 && OPENING.includes(name)) call.opened.push(result);
  return String(Math.max(-200, Math.min(1, result)));
}

/** The addon, called with whatever JavaScript has. It must throw or return the kernel's answer, and never take the process down. */
export const memoryAddon: Target = {
  name: "memory-addon",
  covers: [],
  format: "bytes",
  maxInputBytes: 128,
  allocationBytes: () => SMALL_BYTES,
  *seeds() {
    for (const index of NAMES.keys()) {
      for (const fill of [0, 1, 64, 70, 160, 182])
        yield Buffer.concat([Buffer.of(index, 0), Buffer.alloc(5, fill)]);
    }
    const choiceOf = (other: () => unknown) =>
      OTHERS.length * Math.ceil(160 / OTHERS.length) + OTHERS.indexOf(other);
    const watch = Buffer.of(NAMES.indexOf("watch"), 0, 3, choiceOf(watched), choiceOf(onFaults));
    yield watch;
    yield Buffer.concat([watch, Buffer.of(NAMES.indexOf("unwatch"), 0, 255)]);
    yield Buffer.concat([watch, Buffer.of(NAMES.indexOf("create"))]);
  },
  run: callAll,
};
