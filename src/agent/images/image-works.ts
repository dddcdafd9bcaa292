import type { Clock } from "../../base/index.js";
import type { EventData, RpcServerSession } from "../../control/index.js";
import { AgentError } from "../errors.js";

/** Most imports and checks at a time: each has two threads of the pool's four busy, which others wait for, too. */
export const MAX_IMAGE_WORKS = 2;

/** How often a client is told how far its work is. */
const TELL_MS = 200;

type Progress = Omit<EventData<"image">, "work">;

/** Imports and checks under way. Each belongs to the connection that asked for it and ends with it, or with the agent. */
export class ImageWorks {
  readonly #clock: Clock;
  readonly #running = new Map<AbortController, Promise<unknown>>();

  constructor(options: { clock: Clock }) {
    this.#clock = options.clock;
  }

  /** Runs `body`. @throws AgentError `busy` when there are too many, or whatever it throws. */
  async run<T>(
    options: { session: RpcServerSession; work: number | undefined },
    body: (each: { signal: AbortSignal; onProgress: (progress: Progress) => void }) => Promise<T>,
  ): Promise<T> {
    if (this.#running.size >= MAX_IMAGE_WORKS) {
      throw new AgentError("busy", `${MAX_IMAGE_WORKS} images are imported or checked at the moment`);
    }
    const controller = new AbortController();
    const stopWatching = options.session.onEnd(() => controller.abort());
    const running = body({ signal: controller.signal, onProgress: this.#teller(options) });
    this.#running.set(
      controller,
      running.catch(() => {}),
    );
    try {
      return await running;
    } finally {
      stopWatching();
      this.#running.delete(controller);
    }
  }

  /** Ends all of them, and waits until they have. */
  async close(): Promise<void> {
    for (const controller of this.#running.keys()) controller.abort();
    await Promise.all(this.#running.values());
  }

  /** Tells of every phase's end, and of what is between now and then. */
  #teller(to: { session: RpcServerSession; work: number | undefined }): (progress: Progress) => void {
    const { session, work } = to;
    if (work === undefined) return () => {};
    let nextUs = 0;
    return (progress) => {
      const nowUs = this.#clock.nowUs();
      if (nowUs < nextUs && progress.doneBytes < progress.sizeBytes) return;
      nextUs = nowUs + TELL_MS * 1000;
      session.sendEvent("image", { work, ...progress });
    };
  }
}
