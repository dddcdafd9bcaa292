import { assert, Bitmap, PAGE_BYTES } from "../../../src/base/index.js";
import type {
  FillableMemory,
  PageRange,
  TrackedMemory,
  WritableMemory,
} from "../../../src/transfer/index.js";
import type { Scheduler } from "./scheduler.js";

/** Fills a page with content that only this page in this version has; version 0 is all zeros. */
export function contentOf(page: number, version: number): Uint8Array {
  const bytes = new Uint8Array(PAGE_BYTES);
  if (version === 0) return bytes;
  const words = new Uint32Array(bytes.buffer);
  words[0] = version;
  words[1] = page;
  words[(version * 31 + page) % 1024] = 0xfeed0000 + version;
  words[1023] = Math.imul(version, 2654435761) ^ page;
  return bytes;
}

/** A guest's memory in an array: holes, protection, and writers that wait for it as a processor would. */
export class SimulatedMemory implements TrackedMemory, FillableMemory, WritableMemory {
  readonly pageCount: number;
  readonly #scheduler: Scheduler;
  readonly #pages: (Uint8Array | undefined)[];
  readonly #protected = new Set<number>();
  readonly #waiters = new Map<number, (() => void)[]>();
  #abandoned = false;
  #ended = false;
  /** Counts how often somebody began or ended to hold it. */
  #registration = 0;
  #mode: "plain" | "tracked" | "filling" = "plain";
  #onFaults: (pages: readonly number[]) => void = () => {};
  /** Two threads install pages: one that exists already stays as it is. */
  twofold = false;
  /** Set to make the host run out of memory after so many more installs. */
  installsLeft = Infinity;

  constructor(scheduler: Scheduler, pageCount: number) {
    this.pageCount = pageCount;
    this.#scheduler = scheduler;
    this.#pages = Array.from({ length: pageCount }, () => undefined);
  }

  /** True when nothing is registered, protected or waited for. */
  get quiet(): boolean {
    return this.#mode === "plain" && this.#protected.size === 0 && this.#waiters.size === 0;
  }

  get waiters(): number {
    return this.#waiters.size;
  }

  /** What the guest sees at once, without waiting; a hole is zeros. */
  content(page: number): Uint8Array {
    return this.#pages[page] ?? new Uint8Array(PAGE_BYTES);
  }

  isHole(page: number): boolean {
    return this.#pages[page] === undefined;
  }

  /** Places content before the guest starts. */
  place(page: number, bytes: Uint8Array): void {
    this.#pages[page] = bytes;
  }

  /** The guest touches a page, to write it when `bytes` are given. `then` runs when the touch has gone through. */
  touch(page: number, bytes: Uint8Array | undefined, then: () => void): void {
    const missing = this.#mode === "filling" && this.#pages[page] === undefined;
    const held = bytes !== undefined && this.#protected.has(page);
    if (missing || held) {
      const waiting = this.#waiters.get(page) ?? [];
      waiting.push(() => this.touch(page, bytes, then));
      this.#waiters.set(page, waiting);
      this.#scheduler.afterUs(this.#scheduler.random.below(30), () => {
        if (this.#mode !== "plain") this.#onFaults([page]);
      });
      return;
    }
    if (bytes !== undefined) this.#pages[page] = bytes;
    else this.#pages[page] ??= new Uint8Array(PAGE_BYTES);
    then();
  }

  /** Its process ends: nothing is registered or protected any more and nobody waits; the content stays in the file, as it is. */
  end(): void {
    this.#ended = true;
    this.#registration += 1;
    this.#mode = "plain";
    this.#protected.clear();
    this.#waiters.clear();
  }

  track(onWriteFaults: (pages: readonly number[]) => void): void {
    this.#start("tracked", onWriteFaults);
  }

  fill(onMissingFaults: (pages: readonly number[]) => void): void {
    this.#start("filling", onMissingFaults);
  }

  /** Reports the faults of memory that is being filled to another thread from here on. */
  join(onFaults: (pages: readonly number[]) => void): void {
    assert(this.#mode === "filling", "what is joined has begun");
    this.#onFaults = onFaults;
    this.wake({ first: 0, count: this.pageCount });
  }

  #start(mode: "tracked" | "filling", onFaults: (pages: readonly number[]) => void): void {
    if (this.#ended) return;
    assert(
      this.#mode === "plain" || (this.#abandoned && this.#mode === mode),
      "memory is in one mode at a time, and in one agent's hands",
    );
    this.#abandoned = false;
    this.#registration += 1;
    this.#mode = mode;
    this.#onFaults = onFaults;
    // As the real one: whoever waits is woken and faults anew.
    this.wake({ first: 0, count: this.pageCount });
  }

  protect(range: PageRange): void {
    assert(this.#mode === "tracked", "memory is protected while tracked");
    for (let page = range.first; page < range.first + range.count; page += 1) this.#protected.add(page);
  }

  /** As the real one, whose thread goes on between any two things that its agent does, and ends with it. */
  async protectAside(range: PageRange): Promise<void> {
    const registration = this.#registration;
    const past = range.first + range.count;
    for (let first = range.first; first < past;) {
      await new Promise<void>((resolve) =>
        this.#scheduler.afterUs(this.#scheduler.random.below(20), resolve),
      );
      if (this.#registration !== registration) return;
      const count = Math.min(past - first, 1 + this.#scheduler.random.below(Math.max(1, range.count / 2)));
      this.protect({ first, count });
      first += count;
    }
  }

  protectedPages(): Bitmap {
    const pages = new Bitmap(this.pageCount);
    for (const page of this.#protected) pages.set(page);
    return pages;
  }

  *installed(): Generator<PageRange> {
    for (let first = 0; first < this.pageCount; first += 1) {
      if (this.#pages[first] !== undefined) yield { first, count: 1 };
    }
  }

  /** The agent ends: what is registered and protected stays so, and nobody is told of faults until another one starts. */
  abandon(): void {
    this.#abandoned = true;
    this.#registration += 1;
    this.#onFaults = () => {};
  }

  unprotect(range: PageRange): void {
    for (let page = range.first; page < range.first + range.count; page += 1) this.#protected.delete(page);
    this.wake(range);
  }

  read(range: PageRange, into: Uint8Array): void {
    for (let index = 0; index < range.count; index += 1)
      into.set(this.content(range.first + index), index * PAGE_BYTES);
  }

  nextData(page: number): PageRange | undefined {
    const first = this.#pages.findIndex((bytes, index) => index >= page && bytes !== undefined);
    if (first === -1) return undefined;
    const end = this.#pages.findIndex((bytes, index) => index > first && bytes === undefined);
    return { first, count: (end === -1 ? this.pageCount : end) - first };
  }

  install(firstPage: number, bytes: Uint8Array): void {
    assert(this.#mode === "filling", "pages are installed while filling");
    for (let offset = 0; offset < bytes.length; offset += PAGE_BYTES) {
      const page = firstPage + offset / PAGE_BYTES;
      assert(this.twofold || this.#pages[page] === undefined, `page ${page} is installed once`);
      if (this.#pages[page] !== undefined) continue;
      if ((this.installsLeft -= 1) < 0)
        throw Object.assign(new Error("the host has no memory left"), { code: "no-memory" });
      this.#pages[page] = Uint8Array.from(bytes.subarray(offset, offset + PAGE_BYTES));
    }
    this.wake({ first: firstPage, count: bytes.length / PAGE_BYTES });
  }

  installZero(range: PageRange): void {
    this.install(range.first, new Uint8Array(range.count * PAGE_BYTES));
  }

  write(firstPage: number, bytes: Uint8Array): void {
    assert(this.#mode === "plain", "pages are written before anything is registered");
    for (let offset = 0; offset < bytes.length; offset += PAGE_BYTES) {
      if ((this.installsLeft -= 1) < 0)
        throw Object.assign(new Error("the host has no memory left"), { code: "no-memory" });
      this.#pages[firstPage + offset / PAGE_BYTES] = Uint8Array.from(
        bytes.subarray(offset, offset + PAGE_BYTES),
      );
    }
  }

  discard(range: PageRange): void {
    assert(this.#mode === "plain", "pages are discarded before anything is registered");
    this.#pages.fill(undefined, range.first, range.first + range.count);
  }

  wake(range: PageRange): void {
    for (let page = range.first; page < range.first + range.count; page += 1) {
      const waiting = this.#waiters.get(page);
      if (waiting === undefined) continue;
      this.#waiters.delete(page);
      for (const retry of waiting) this.#scheduler.afterUs(this.#scheduler.random.below(5), retry);
    }
  }

  release(): void {
    this.#registration += 1;
    this.#mode = "plain";
    this.#protected.clear();
    this.wake({ first: 0, count: this.pageCount });
  }
}
