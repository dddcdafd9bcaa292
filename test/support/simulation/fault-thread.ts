import { ThreadChannel } from "../../../src/agent/faults/thread-channel.js";
import {
  FaultServer,
  Gate,
  pagesOf,
  RequestServer,
  type Channel,
  type ChildNotes,
  type FaultThread,
  type FillableMemory,
  type FrameLane,
  type LaneEnd,
  type ThreadLane,
} from "../../../src/transfer/index.js";
import type { Frame } from "../../../src/wire/index.js";
import type { Life } from "./host.js";
import type { SimulatedMemory } from "./memory.js";
import type { Plan } from "./plan.js";
import type { Scheduler } from "./scheduler.js";

/** Longest time a message between two threads takes: mostly none to speak of, or as long as a thread that has much else to do. */
const SLOW_US = [5, 5, 1500];

/** What may go with an answer: pages of its block. */
const AROUND_PAGES = [0, 2, 4, 16, 64];

type TakeUp = Parameters<ThreadLane["takeUp"]>[0];

/** Messages in one direction between the threads of one agent: in order, a while later, and none after its death. */
class Messages {
  readonly #life: Life;
  readonly #scheduler: Scheduler;
  #arrivesAtUs = 0;

  constructor(life: Life, scheduler: Scheduler) {
    this.#life = life;
    this.#scheduler = scheduler;
  }

  post(run: () => void): void {
    const { random } = this.#scheduler;
    const now = this.#scheduler.nowUs();
    this.#arrivesAtUs = Math.max(this.#arrivesAtUs + 1, now + random.below(random.pick(SLOW_US)));
    this.#scheduler.afterUs(this.#arrivesAtUs - now, () => void (this.#life.alive && run()));
  }
}

/**
 * The fault thread of an agent, which does what the real one does, in turns with the agent's own: the two share maps of pages, and everything else they tell each other
 * arrives later.
 */
export class SimulatedThread {
  readonly #toThread: Messages;
  readonly #toMain: Messages;
  readonly #life: Life;
  readonly #scheduler: Scheduler;

  constructor(life: Life, scheduler: Scheduler) {
    this.#life = life;
    this.#scheduler = scheduler;
    this.#toThread = new Messages(life, scheduler);
    this.#toMain = new Messages(life, scheduler);
  }

  /** What serves one child's faults, and takes up its urgent lanes. */
  child(options: {
    transfer: number;
    memory: FillableMemory;
    /** As the thread sees it: its `fill` joins the filling that has begun. */
    joined: FillableMemory;
    notes: ChildNotes | undefined;
  }): { faults: FaultThread; lane(lane: FrameLane): ThreadLane } {
    const { transfer, memory, joined, notes } = options;
    let server: FaultServer | undefined;
    let stopped = false;
    let onFailed: (error: Error) => void = () => {};
    const asking: (() => void)[] = [];
    return {
      faults: {
        fill: (share, handlers) => {
          memory.fill(() => {});
          const tell = (run: () => void) => this.#toMain.post(() => void (!stopped && run()));
          onFailed = (error) => tell(() => handlers.onFailed(error));
          this.#toThread.post(() => {
            if (stopped) return;
            const { clock } = this.#life;
            const onTaken = (taken: Parameters<typeof handlers.onTaken>[0]) =>
              tell(() => {
                new Gate(share.gate).addUnseen(-pagesOf(taken));
                handlers.onTaken(taken);
              });
            server = new FaultServer({ transfer, share, memory: joined, notes, clock, onTaken });
            server.start((error) => this.#failed(error, onFailed));
            for (const ask of asking.splice(0)) ask();
          });
        },
        settled: (pages) => this.#toThread.post(() => server?.settled(pages)),
        stop: () => {
          stopped = true;
          server?.stop();
        },
      },
      lane: (lane) =>
        this.#laneOf(lane, ({ handlers: _ }, channel) => {
          let served: Channel | undefined;
          const ask = (): void => {
            if (server === undefined) return;
            const telling = this.#tellingOf(channel);
            const made = server.channelOf(lane, telling, (error) => this.#failed(error, onFailed));
            served = made;
            server.begin(made);
          };
          if (server === undefined) asking.push(ask);
          else ask();
          return {
            send: (frame) => void served?.send(frame),
            close: (end) => (served ?? lane).close(end),
          };
        }),
    };
  }

  /** An urgent lane of a parent's, whose memory the thread reads. */
  parent(lane: FrameLane, memory: SimulatedMemory): ThreadLane {
    return this.#laneOf(lane, ({ transfer, pageCount, share }, channel) => {
      if (share === undefined) throw new Error("an urgent lane that is accepted is a parent's");
      const { passedOn, ended } = this.#tellingOf(channel);
      const server = new RequestServer({
        transfer,
        pageCount,
        lane,
        share,
        read: (range, into) => {
          // As links of any speed would have it, and never as long as the session has it.
          new Gate(share.gate).aroundPages = this.#scheduler.random.pick(AROUND_PAGES);
          memory.read(range, into);
        },
        tell: {
          answered: (answers, bytes) =>
            this.#toMain.post(() => channel.told({ is: "answered", lane: 0, answers, bytes })),
          passedOn,
          ended,
        },
      });
      server.attach();
      return server;
    });
  }

  #laneOf(
    lane: FrameLane,
    takeUp: (
      options: TakeUp,
      channel: ThreadChannel,
    ) => { send(frame: Frame): void; close(end: LaneEnd): void },
  ): ThreadLane {
    return {
      takeUp: (options) => {
        let served: { send(frame: Frame): void; close(end: LaneEnd): void } | undefined;
        const channel: ThreadChannel = new ThreadChannel({
          handlers: options.handlers,
          gate: options.share && new Gate(options.share.gate),
          attach: () => this.#toThread.post(() => void (served = takeUp(options, channel))),
          send: (frame) => this.#toThread.post(() => served?.send(frame)),
          close: (end) => this.#toThread.post(() => (served ?? lane).close(end)),
        });
        return channel;
      },
      close: (end) => this.#toThread.post(() => lane.close(end)),
    };
  }

  #tellingOf(channel: ThreadChannel) {
    return {
      passedOn: (frame: Frame, frameBytes: number, bytes: number) =>
        this.#toMain.post(() => channel.told({ is: "frame", lane: 0, frame, frameBytes, bytes })),
      counted: (bytes: number) => this.#toMain.post(() => channel.told({ is: "counted", lane: 0, bytes })),
      ended: (end: LaneEnd) => this.#toMain.post(() => channel.told({ is: "ended", lane: 0, end })),
    };
  }

  #failed(error: unknown, onFailed: (error: Error) => void): void {
    if (error instanceof Error && "code" in error && error.code !== "internal") onFailed(error);
    else this.#scheduler.fail(error);
  }
}

/** An urgent lane that a parent's agent is dialled on, which another thread of it takes up where the plan says so. */
export function urgentLane(
  life: Life,
  world: { plan: Plan; scheduler: Scheduler; guest: { memory: SimulatedMemory } },
  lane: FrameLane,
): FrameLane | ThreadLane {
  const { plan, scheduler, guest } = world;
  return plan.threads ? new SimulatedThread(life, scheduler).parent(lane, guest.memory) : lane;
}
