import { existsSync, readdirSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { isSame, messageOf, type Clock, type Holder, type Log } from "../../base/index.js";
import { AgentError } from "../errors.js";
import { readIfThere, UNFINISHED_SUFFIX, writeAtomically } from "./files.js";
import { holderSchema } from "./holder.js";

const DAY_MS = 24 * 60 * 60 * 1000;

/** How long it is remembered that a migrated guest ran here, and of how many; the oldest are forgotten first. */
export const KEEP_FORMER_MS = 30 * DAY_MS;
export const MAX_FORMER_CHILDREN = 10_000;

const formerChildSchema = z.strictObject({
  transfer: z.int().min(1).max(0xffffffff),
  /** Who had the parent, and alone is told; absent from records of earlier versions. */
  holder: holderSchema.optional(),
  guest: z.string(),
  /** When it left, wall clock. */
  leftAtMs: z.number(),
  /** Whether it had all its memory, and so did not depend on its parent's host. */
  complete: z.boolean(),
  /** The host it went on to, or was to go on to. */
  movedTo: z.string().optional(),
});

/** A guest that came here by a migration, ran here, and is here no more. */
export type FormerChild = z.output<typeof formerChildSchema>;

const fileSchema = z.strictObject({
  version: z.literal(1),
  children: z.array(formerChildSchema),
});

/**
 * The migrated guests that ran here and are gone, in one file that is replaced in one step: their parents' agents may ask late, and would let a parent run on
 * whose child "was never there". A file that cannot be read is put aside, and until an operator has removed it nobody is told that a child was never here.
 */
export class FormerChildren {
  readonly #path: string;
  readonly #clock: Clock;
  #children: readonly FormerChild[] = [];
  #writing: Promise<void> = Promise.resolve();

  private constructor(path: string, clock: Clock) {
    this.#path = path;
    this.#clock = clock;
  }

  /** @throws the file system's error when a damaged file cannot be put aside. */
  static async open(options: { path: string; clock: Clock; log: Log }): Promise<FormerChildren> {
    const { path, clock, log } = options;
    const store = new FormerChildren(path, clock);
    removeUnfinished(path);
    try {
      const text = await readIfThere(path);
      if (text !== undefined) store.#children = store.#kept(fileSchema.parse(JSON.parse(text)).children);
    } catch (error) {
      renameSync(path, store.#damaged);
      log.error({ path, problem: messageOf(error) }, "which migrated guests ran here cannot be read");
    }
    if (!store.isWhole)
      log.error(
        { path: store.#damaged },
        "migrated guests may have run here that this agent does not know of: other agents are told not-ready until this file is removed",
      );
    return store;
  }

  /** False when there may have been children here that are not known. */
  get isWhole(): boolean {
    return !existsSync(this.#damaged);
  }

  /** @throws AgentError `not-ready` while it is not whole. */
  requireWhole(transfer: number): void {
    if (this.isWhole) return;
    throw new AgentError(
      "not-ready",
      `this host cannot say whether the child of transfer ${transfer} ran here, because its notes of that were damaged; they are in ${this.#damaged}: when it is certain that no migration to this host is undecided, remove that file`,
    );
  }

  /** The former children of a transfer; two parents' agents may have given it the same number. */
  of(transfer: number): readonly FormerChild[] {
    return this.#children.filter((child) => child.transfer === transfer);
  }

  /** Resolves when it is on disk. @throws AgentError `no-room` or the file system's error; it is not remembered then. */
  add(child: FormerChild): Promise<void> {
    const next = this.#writing.catch(() => {}).then(() => this.#addNow(child));
    this.#writing = next;
    return next;
  }

  async #addNow(child: FormerChild): Promise<void> {
    const others = this.#children.filter((other) => !isSameChild(other, child));
    const children = this.#kept([...others, child]);
    await writeAtomically(this.#path, `${JSON.stringify({ version: 1, children })}\n`);
    this.#children = children;
  }

  #kept(children: readonly FormerChild[]): readonly FormerChild[] {
    const sinceMs = this.#clock.wallMs() - KEEP_FORMER_MS;
    return children.filter(({ leftAtMs }) => leftAtMs >= sinceMs).slice(-MAX_FORMER_CHILDREN);
  }

  get #damaged(): string {
    return `${this.#path}.damaged`;
  }
}

/** Whether a child is of this holder; earlier versions did not note whose they were. */
export function isHeldBy({ holder }: { holder?: Holder | undefined }, asking: Holder): boolean {
  return holder === undefined || isSame(holder, asking);
}

function isSameChild(left: FormerChild, right: FormerChild): boolean {
  if (left.transfer !== right.transfer) return false;
  if (left.holder === undefined || right.holder === undefined) return left.holder === right.holder;
  return isSame(left.holder, right.holder);
}

/** What was being written when an agent or the machine went down. */
function removeUnfinished(path: string): void {
  const directory = dirname(path);
  for (const name of readdirSync(directory)) {
    if (name.startsWith(`${basename(path)}.`) && name.endsWith(UNFINISHED_SUFFIX))
      rmSync(join(directory, name), { force: true });
  }
}
