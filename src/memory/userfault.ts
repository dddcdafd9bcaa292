import { closeSync } from "node:fs";
import { assert, type Bitmap, PAGE_BYTES } from "../base/index.js";
import { takeDescriptor } from "./descriptors.js";
import { MemoryError } from "./errors.js";
import { type Mapping, readMaps } from "./mapping.js";
import {
  ERRNO,
  errnoName,
  loadNative,
  MAX_FAULT_BATCH,
  type Native,
  PROTECT,
  REGISTER_MISSING,
  REGISTER_WRITE_PROTECT,
  UNPROTECT,
  type Watcher,
} from "./native.js";
import { protectedPagesOf } from "./pagemap.js";
import { assertRange, type PageRange } from "./range.js";

/** What the userfaultfd reports: touches of pages that do not exist, or writes to pages that are protected. */
export type FaultMode = "missing" | "write-protect";

/** A userfaultfd over a mapping, on its way to another thread. */
export interface SharedFaults {
  pid: number;
  descriptor: number;
  address: number;
  areaEnds: number[];
}

/** Tries of a call that the kernel answers with EAGAIN and no progress, before that is an error. */
const MAX_TRIES = 1000;

/** Bytes protected at a time aside: an emulator that maps or unmaps memory waits for one such call, and so does whoever ends it. */
const ASIDE_SLICE_BYTES = 2048 * PAGE_BYTES;
/** Threads that do so. The second takes only what guests leave of the processors. */
const ASIDE_THREADS = 2;

/**
 * An emulator's userfaultfd over the mapping of its memory file, in pages instead of addresses. No policy: it does what
 * is asked, and cuts ranges where the kernel wants them cut (a call must stay within one area of the mapping).
 */
export class Userfault {
  readonly pageCount: number;
  readonly #native: Native = loadNative();
  readonly #pid: number;
  readonly #fd: number;
  readonly #address: number;
  readonly #areaEnds: readonly number[];
  readonly #addresses = new Float64Array(MAX_FAULT_BATCH);
  /** What cancels what goes on aside. */
  readonly #asides = new Set<() => void>();
  #watcher: Watcher | undefined;
  #mode: FaultMode | undefined;
  #closed = false;

  /** Takes over the descriptor. */
  constructor(options: { pid: number; fd: number; mapping: Mapping }) {
    this.#pid = options.pid;
    this.#fd = options.fd;
    this.#address = options.mapping.address;
    this.#areaEnds = options.mapping.areaEnds;
    this.pageCount = options.mapping.areaEnds.at(-1) ?? 0;
  }

  /** What is reported at the moment to this process. */
  get mode(): FaultMode | undefined {
    return this.#mode;
  }

  /**
   * Registers all of the memory and reports faults from the event loop. Whoever already waits is woken and faults anew:
   * an earlier agent may have read the event and died before it served it. A page may be reported more than once.
   * @throws MemoryError `gone`, `no-memory` or `failed`.
   */
  start(mode: FaultMode, onFaults: (pages: readonly number[]) => void): void {
    this.register(mode);
    try {
      this.watch(mode, onFaults);
    } catch (error) {
      this.#native.unregister(this.#fd, this.#address, this.pageCount * PAGE_BYTES);
      throw error;
    }
  }

  /** Registers all of the memory, whose faults somebody else reports, with `watch`. @throws MemoryError `gone`, `no-memory` or `failed`. */
  register(mode: FaultMode): void {
    assert(
      !this.#closed && this.#mode === undefined,
      `memory is already open for ${this.#mode} faults, or closed`,
    );
    const kernelMode = mode === "missing" ? REGISTER_MISSING : REGISTER_WRITE_PROTECT;
    const result = this.#native.register(this.#fd, this.#address, this.pageCount * PAGE_BYTES, kernelMode);
    if (result < 0) throw this.#error("registering its memory", result);
    this.#mode = mode;
  }

  /** Reports faults of memory that is registered, from this thread's event loop; one reads them at a time. Otherwise as `start`. @throws MemoryError `failed`. */
  watch(mode: FaultMode, onFaults: (pages: readonly number[]) => void): void {
    const watcher = this.#native.watch(this.#fd, this.#addresses, (count) => onFaults(this.#pagesOf(count)));
    if (typeof watcher === "number") {
      this.#mode = undefined;
      throw this.#error("watching its userfaultfd", watcher);
    }
    this.#watcher = watcher;
    this.#mode = mode;
    this.wake({ first: 0, count: this.pageCount });
  }

  /** What another thread needs to have the same userfaultfd, with a descriptor of its own, which it closes. @throws MemoryError `failed`. */
  share(): SharedFaults {
    assert(!this.#closed, "a userfaultfd is shared while it is open");
    const descriptor = takeDescriptor(process.pid, this.#fd);
    return { pid: this.#pid, descriptor, address: this.#address, areaEnds: [...this.#areaEnds] };
  }

  /** Reports nothing any more, for whoever starts next. What is registered stays so, and later faults wait. */
  leave(): void {
    this.#unwatch();
  }

  /**
   * Takes back all protection and registration and wakes every waiter, also where an earlier agent registered. Does
   * nothing for an emulator that has ended.
   */
  stop(): void {
    if (this.#closed) return;
    this.#unwatch();
    const result = this.#native.unregister(this.#fd, this.#address, this.pageCount * PAGE_BYTES);
    if (result < 0 && !this.#hasEnded(result)) throw this.#error("releasing its memory", result);
    this.wake({ first: 0, count: this.pageCount }); // unregistering itself wakes only those who wait for missing pages
  }

  /** The pages that are write-protected, by whatever agent. @throws MemoryError `gone` or `not-permitted`. */
  protectedPages(): Bitmap {
    return protectedPagesOf(this.#pid, { address: this.#address, pageCount: this.pageCount });
  }

  /** Holds up writes. Write-protect mode only. @throws MemoryError `gone`, `no-memory` or `failed`. */
  protect(range: PageRange): void {
    assert(this.#mode === "write-protect", "pages are protected only while writes are tracked");
    const result = this.#changeProtection(range, PROTECT);
    if (result < 0) throw this.#error("protecting its pages", result);
  }

  /**
   * As `protect`, on other threads while this one goes on. Resolves when all of it is protected, or when `stop` or `close` has ended that.
   * What is unprotected meanwhile may be protected again.
   */
  async protectAside(range: PageRange): Promise<void> {
    assert(this.#mode === "write-protect", "pages are protected only while writes are tracked");
    assertRange(range, this.pageCount);
    const end = range.first + range.count;
    const works: Promise<number>[] = [];
    for (let page = range.first; page < end; page = this.#areaEnd(page))
      works.push(this.#protectAside({ first: page, count: Math.min(end, this.#areaEnd(page)) - page }));
    const failure = (await Promise.all(works)).find((result) => result < 0 && result !== -ERRNO.ECANCELED);
    if (failure !== undefined) throw this.#error("protecting its pages", failure);
  }

  /** Lets writes through and wakes their writers; nothing to do where no page is registered or no process is left. */
  unprotect(range: PageRange): void {
    if (this.#closed) return; // the descriptor's number may be another emulator's by now
    const result = this.#changeProtection(range, UNPROTECT);
    if (result < 0 && !this.#hasEnded(result)) throw this.#error("unprotecting its pages", result);
  }

  /** Wakes whoever waits, to try again. */
  wake(range: PageRange): void {
    if (this.#closed) return;
    assertRange(range, this.pageCount);
    const result = this.#native.wake(this.#fd, this.#addressOf(range.first), range.count * PAGE_BYTES);
    if (result < 0) throw this.#error("waking it", result);
  }

  /**
   * Creates consecutive pages with the given content and wakes whoever waits for them.
   * @returns how many of them existed already; those are left as they are, and whoever waits for them is woken too.
   * @throws MemoryError `gone`, `no-memory` or `failed`; the pages before the failing one are installed then.
   */
  copy(firstPage: number, bytes: Uint8Array): number {
    assert(bytes.length % PAGE_BYTES === 0, `${bytes.length} bytes are not whole pages`);
    return this.#create({ first: firstPage, count: bytes.length / PAGE_BYTES }, bytes);
  }

  /** Creates pages of zeros; otherwise as `copy`. */
  zero(range: PageRange): number {
    return this.#create(range, undefined);
  }

  /**
   * Closes this process's descriptor. What is registered stays so, and later faults wait for the next agent, because
   * the emulator keeps its own descriptor.
   */
  close(): void {
    if (this.#closed) return;
    this.#unwatch();
    this.#closed = true;
    closeSync(this.#fd);
  }

  #create(range: PageRange, bytes: Uint8Array | undefined): number {
    assertRange(range, this.pageCount);
    assert(this.#mode === "missing", "pages are installed only while memory is being filled");
    const end = range.first + range.count;
    let existing = 0;
    let tries = 0;
    for (let page = range.first; page < end;) {
      const length = (Math.min(end, this.#areaEnd(page)) - page) * PAGE_BYTES;
      const offset = (page - range.first) * PAGE_BYTES;
      const done =
        bytes === undefined
          ? this.#native.zeroPage(this.#fd, this.#addressOf(page), length)
          : this.#native.copy(this.#fd, this.#addressOf(page), offset, length, bytes);
      if (done > 0) {
        page += done / PAGE_BYTES;
        tries = 0;
      } else if (done === -ERRNO.EEXIST) {
        this.wake({ first: page, count: 1 });
        existing += 1;
        page += 1;
      } else if (done !== -ERRNO.EAGAIN || ++tries > MAX_TRIES) {
        throw this.#error("installing a page", done);
      }
    }
    return existing;
  }

  #protectAside({ first, count }: PageRange): Promise<number> {
    return new Promise((resolve) => {
      const address = this.#addressOf(first);
      const length = count * PAGE_BYTES;
      const onDone = (result: number): void => {
        this.#asides.delete(cancel);
        resolve(result);
      };
      const sliced = [ASIDE_SLICE_BYTES, ASIDE_THREADS] as const;
      const cancel = this.#native.protectAside(this.#fd, address, length, ...sliced, onDone);
      this.#asides.add(cancel);
    });
  }

  #changeProtection(range: PageRange, kernelMode: number): number {
    assertRange(range, this.pageCount);
    const end = range.first + range.count;
    let tries = 0;
    for (let page = range.first; page < end;) {
      const stop = Math.min(end, this.#areaEnd(page));
      const length = (stop - page) * PAGE_BYTES;
      const result = this.#native.writeProtect(this.#fd, this.#addressOf(page), length, kernelMode);
      if (result >= 0) page = stop;
      else if (result !== -ERRNO.EAGAIN || ++tries > MAX_TRIES) return result;
    }
    return 0;
  }

  #addressOf(page: number): number {
    return this.#address + page * PAGE_BYTES;
  }

  /** The end of the kernel's area that holds `page`. There is nearly always one, at most a handful. */
  #areaEnd(page: number): number {
    for (const end of this.#areaEnds) if (page < end) return end;
    return this.pageCount;
  }

  #pagesOf(count: number): number[] {
    assert(count > 0, `reading a userfaultfd failed with ${count}`);
    const pages = new Array<number>(count);
    for (let index = 0; index < count; index += 1) {
      pages[index] = Math.floor(((this.#addresses[index] as number) - this.#address) / PAGE_BYTES);
    }
    return pages;
  }

  /** Nothing is protected or reported from here on. */
  #unwatch(): void {
    for (const cancel of this.#asides) cancel();
    if (this.#watcher !== undefined) this.#native.unwatch(this.#watcher);
    this.#watcher = undefined;
    this.#mode = undefined;
  }

  /** Whether an errno means that no process, or no registered memory, is left. */
  #hasEnded(result: number): boolean {
    if (result === -ERRNO.ESRCH || result === -ERRNO.ENOENT) return true;
    if (result !== -ERRNO.ENOMEM) return false;
    try {
      readMaps(this.#pid); // (un)registering memory of a process that has ended fails with ENOMEM too
      return false;
    } catch {
      return true;
    }
  }

  #error(what: string, result: number): MemoryError {
    const subject = `process ${this.#pid}: ${what}`;
    if (this.#hasEnded(result)) return new MemoryError("gone", `${subject} failed, because it has ended`);
    if (result === -ERRNO.ENOMEM || result === -ERRNO.ENOSPC) {
      return new MemoryError("no-memory", `${subject} failed, because the host has no memory left for it`);
    }
    return new MemoryError("failed", `${subject} failed (${errnoName(result)})`);
  }
}
