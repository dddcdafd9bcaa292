/**
 * What a disk may hold: for each cell, everything it may read as. Only what was written before a flush that came back is certain. What was written since may be there or not, cell by cell, in any of the
 * values the cell was given since: an emulator that is killed loses what it had not yet said of itself to the host, and a copy of its chain may have what itself had lost.
 */
import { strict as assert } from "node:assert";

export const CELL_BYTES = 4096;

export class DiskModel {
  /** What a read gives now, and what may be there after a crash. */
  readonly #now: Set<number>[];
  readonly #later: Set<number>[];

  constructor(cells: Iterable<number>) {
    const values = [...cells];
    this.#now = values.map((value) => new Set([value]));
    this.#later = values.map((value) => new Set([value]));
  }

  get cells(): number {
    return this.#now.length;
  }

  /** A disk that is now what this one is, whatever comes. */
  copy(): DiskModel {
    const copy = new DiskModel([]);
    for (const cell of this.#now) {
      copy.#now.push(new Set(cell));
      copy.#later.push(new Set(cell));
    }
    return copy;
  }

  /** The request is on its way. @returns what is to be called when it was answered. */
  write(from: number, count: number, values: readonly number[]): () => void {
    for (let cell = from; cell < from + count; cell += 1) {
      for (const value of values) {
        this.#now[cell]?.add(value);
        this.#later[cell]?.add(value);
      }
    }
    return () => {
      for (let cell = from; cell < from + count; cell += 1) {
        this.#now[cell]?.clear();
        for (const value of values) this.#now[cell]?.add(value);
      }
    };
  }

  /** What may be written or not. */
  trim(from: number, count: number): void {
    for (let cell = from; cell < from + count; cell += 1) {
      this.#now[cell]?.add(0);
      this.#later[cell]?.add(0);
    }
  }

  /** All that was answered is safe. Nothing is on its way. */
  flushed(): void {
    for (const [index, cell] of this.#now.entries()) this.#later[index] = new Set(cell);
  }

  /** A read of a disk that runs. */
  see(from: number, data: Buffer, what: string): void {
    this.#compare(this.#now, from, data, what);
  }

  /** All of it after a crash, which from now on it certainly is. */
  settle(data: Buffer, what: string): void {
    assert.equal(data.length, this.cells * CELL_BYTES, `${what}: its size`);
    this.#compare(this.#later, 0, data, what);
    for (const index of this.#now.keys()) {
      const value = data[index * CELL_BYTES] as number;
      this.#now[index] = new Set([value]);
      this.#later[index] = new Set([value]);
    }
  }

  #compare(possible: readonly ReadonlySet<number>[], from: number, data: Buffer, what: string): void {
    const wrong: string[] = [];
    for (let index = 0; index * CELL_BYTES < data.length; index += 1) {
      const cell = data.subarray(index * CELL_BYTES, (index + 1) * CELL_BYTES);
      const may = possible[from + index] ?? new Set();
      const isWhole = cell.every((byte) => byte === cell[0]);
      if (!isWhole || !may.has(cell[0] as number))
        wrong.push(`cell ${from + index} is ${isWhole ? cell[0] : "torn"}, not ${[...may].join(" or ")}`);
    }
    assert.deepEqual(wrong.slice(0, 12), [], `${what}: ${wrong.length} cells are wrong`);
  }
}
