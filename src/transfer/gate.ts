/** Words of a gate. */
const OPEN = 0;
const WAITING = 1;
const CONTENT = 2;
const STOPPED = 3;
const UNSEEN = 4;
const AROUND = 5;
const WORDS = 6;

/** A few facts that two threads share about one transfer, each changed by one of them. What a thread did before it changed one has happened for whoever sees it changed. */
export class Gate {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(WORDS * 4)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /** Requests may be answered. */
  get open(): boolean {
    return Atomics.load(this.#words, OPEN) === 1;
  }

  set open(open: boolean) {
    Atomics.store(this.#words, OPEN, open ? 1 : 0);
  }

  /** Whoever serves touches is to pass on the content of the pages that come. */
  get wantsContent(): boolean {
    return Atomics.load(this.#words, CONTENT) === 1;
  }

  set wantsContent(wanted: boolean) {
    Atomics.store(this.#words, CONTENT, wanted ? 1 : 0);
  }

  /** One more (or fewer) page is asked for. */
  addWaiting(change: 1 | -1): void {
    Atomics.add(this.#words, WAITING, change);
  }

  /** Pages that are asked for. What this thread did before has happened for a thread that asks for another page from here on. */
  get waiting(): number {
    return Atomics.add(this.#words, WAITING, 0);
  }

  /** Pages that one thread has told the other of, and the other has not seen to yet. */
  get unseen(): number {
    return Atomics.load(this.#words, UNSEEN);
  }

  /** So many pages more (or, once they are seen to, fewer) are on the way to the other thread. */
  addUnseen(pages: number): void {
    Atomics.add(this.#words, UNSEEN, pages);
  }

  /** Whoever answers a request may send so many pages with it, those of its block: a power of two, or 0 for none but the page itself. */
  get aroundPages(): number {
    return Atomics.load(this.#words, AROUND);
  }

  set aroundPages(pages: number) {
    Atomics.store(this.#words, AROUND, pages);
  }

  /** What this thread did before has happened for whoever sees what it does later, and it sees what others did. */
  fence(): void {
    Atomics.add(this.#words, OPEN, 0);
  }

  /** Whoever served touches has let go of everything. */
  stopped(): void {
    Atomics.store(this.#words, STOPPED, 1);
    Atomics.notify(this.#words, STOPPED);
  }

  /** Waits for `stopped`, with nothing else going on in this thread; false when that took longer than the deadline. */
  awaitStopped(deadlineMs: number): boolean {
    return Atomics.wait(this.#words, STOPPED, 0, deadlineMs) !== "timed-out";
  }
}
