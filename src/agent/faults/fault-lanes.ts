import { closeSync } from "node:fs";
import { codeOf, createLog, messageOf, realClock, silentLog, sleep, type Log } from "../../base/index.js";
import { Credentials, Listener, type Connection } from "../../lane/index.js";
import { JoinedFile, JoinedFilling } from "../../memory/index.js";
import { FaultServer, Gate, RequestServer, type LaneEnd } from "../../transfer/index.js";
import type { Frame } from "../../wire/index.js";
import { dialLane } from "../transfers/dial-lane.js";
import { BatchedTellings } from "./batched-tellings.js";
import { DigestNotes } from "./digest-notes.js";
import type { FaultThreadSettings, Order, Socketed, Telling } from "./messages.js";

/** How long other sides are given to hear of an end: whoever does not, dials again. */
const CLOSE_MS = 100;

const CLOSED: LaneEnd = { code: "closed", message: "the agent is stopping", fatal: false };

/** Why is not told of a lane that nobody has taken up. */
const PARKED_END: LaneEnd = { code: "lane-lost", message: "the lane has ended", fatal: false };

/** A lane of this thread: not taken up by anybody yet, or served. */
type Served =
  | { lane: Connection }
  | { send(frame: Frame): void; close(end: LaneEnd): void; file?: JoinedFile | undefined };

interface ServedChild {
  server: FaultServer;
  memory: JoinedFilling;
  notes: DigestNotes | undefined;
}

type Do<Kind extends Order["do"]> = Extract<Order, { do: Kind }>;

/**
 * What the fault thread does: it has the urgent lanes of all transfers and the userfaultfds of all children, and does for each what can be done there
 * (`RequestServer`, `FaultServer`). The agent's own thread says what is to be done, and is told what came of it.
 */
export class FaultLanes {
  readonly #batch: BatchedTellings;
  readonly #settings: FaultThreadSettings;
  readonly #log: Log;
  readonly #credentials: Credentials | undefined;
  readonly #listeners: { readonly [At in Socketed]: Listener | undefined };
  readonly #lanes = new Map<number, Served>();
  readonly #children = new Map<number, ServedChild>();
  #arrived = 0;
  #closing = false;

  constructor(settings: FaultThreadSettings, tell: (telling: Telling) => void) {
    this.#settings = settings;
    this.#batch = new BatchedTellings(realClock, tell);
    this.#log = settings.logLevel === "silent" ? silentLog : createLog(settings.logLevel);
    const { tls, key } = settings;
    const [clock, log] = [realClock, this.#log];
    // The agent's own thread reads the same files, and says what there is to say about them.
    this.#credentials = tls === undefined ? undefined : Credentials.load(tls, { clock, log: silentLog });
    this.#credentials?.watch();
    const common = { clock, log, onConnection: (connection: Connection) => this.#onArrived(connection) };
    const byKey = key === undefined ? undefined : Buffer.from(key);
    const protectedSomehow = tls !== undefined || byKey !== undefined;
    this.#listeners = {
      tcp: protectedSomehow
        ? Listener.ofHanded({
            ...common,
            address: { host: "127.0.0.1", port: 0 },
            credentials: this.#credentials,
            key: byKey,
          })
        : undefined,
      unix: Listener.ofHanded({ ...common, address: { path: "" } }),
    };
  }

  obey(order: Order): void {
    switch (order.do) {
      case "take":
        return this.#listeners[order.at]?.take(order.handed);
      case "dial":
        return void this.#dial(order);
      case "park":
        return this.#takeUp(order.lane)?.park(() => this.#onEnded(order.lane, PARKED_END));
      case "answer":
        return this.#answer(order);
      case "ask":
        return this.#ask(order);
      case "send":
        return this.#send(order);
      case "close":
        return this.#close(order.lane, order.end);
      case "fill":
        return this.#fill(order);
      case "settle":
        return this.#children.get(order.child)?.server.settled(order.pages);
      case "stop":
        return this.#stop(order);
      case "reload":
        return this.#reload();
      case "end":
    }
  }

  /** Ends every lane. Takes a tenth of a second at the most. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#credentials?.close();
    for (const lane of [...this.#lanes.keys()]) this.#close(lane, CLOSED);
    const closed = Promise.all([this.#listeners.tcp?.close(), this.#listeners.unix?.close()]);
    await Promise.race([closed, sleep(realClock, CLOSE_MS)]);
  }

  #reload(): void {
    try {
      this.#credentials?.reload();
    } catch (error) {
      this.#log.warn({ problem: messageOf(error) }, "urgent lanes go on with the former certificates");
    }
  }

  #onArrived(connection: Connection): void {
    const { hello, identity, remote } = connection;
    if (hello.purpose !== "urgent") {
      const message = `a ${hello.purpose} lane was dialled as an urgent one`;
      return connection.close({ code: "bad-message", message, fatal: true });
    }
    const lane = -(this.#arrived += 1);
    this.#lanes.set(lane, { lane: connection });
    this.#batch.now({ is: "arrived", lane, hello, identity, remote });
  }

  async #dial({ lane, address }: Do<"dial">): Promise<void> {
    const key = this.#settings.key && Buffer.from(this.#settings.key);
    const dialler = { configuration: { key }, credentials: this.#credentials, clock: realClock };
    try {
      const dialled = await dialLane(dialler, address);
      if (this.#closing) return dialled.close(CLOSED);
      this.#lanes.set(lane, { lane: dialled });
      this.#batch.now({ is: "dialled", lane });
    } catch (error) {
      const fatal = error instanceof Error && "fatal" in error && error.fatal === true;
      this.#batch.now({
        is: "undialled",
        lane,
        error: { code: codeOf(error), message: messageOf(error), fatal },
      });
    }
  }

  #takeUp(lane: number): Connection | undefined {
    const served = this.#lanes.get(lane);
    return served !== undefined && "lane" in served ? served.lane : undefined;
  }

  #answer({ lane, transfer, pageCount, share, file: descriptor }: Do<"answer">): void {
    const taken = this.#takeUp(lane);
    if (taken === undefined) {
      if (descriptor !== undefined) closeSync(descriptor);
      return;
    }
    const file = descriptor === undefined ? undefined : new JoinedFile(descriptor);
    const server = new RequestServer({
      transfer,
      pageCount,
      lane: taken,
      share,
      ...(file === undefined ? {} : { read: (range, into) => file.read(range, into) }),
      tell: {
        answered: (answers, bytes) => this.#batch.answered(lane, answers, bytes),
        passedOn: (frame, frameBytes, bytes) =>
          this.#batch.now({ is: "frame", lane, frame, frameBytes, bytes }),
        ended: (end) => this.#onEnded(lane, end),
      },
    });
    this.#lanes.set(lane, {
      send: (frame) => server.send(frame),
      close: (end) => server.close(end),
      file,
    });
    server.attach();
  }

  #ask({ lane, child }: Do<"ask">): void {
    const taken = this.#takeUp(lane);
    const served = this.#children.get(child);
    if (taken === undefined || served === undefined) return;
    const channel = served.server.channelOf(
      taken,
      {
        passedOn: (frame, frameBytes, bytes) =>
          this.#batch.now({ is: "frame", lane, frame, frameBytes, bytes }),
        counted: (bytes) => this.#batch.counted(lane, bytes),
        ended: (end) => this.#onEnded(lane, end),
      },
      (error) => this.#onFailed(child, error),
    );
    this.#lanes.set(lane, {
      send: (frame) => void channel.send(frame),
      close: (end) => channel.close(end),
    });
    served.server.begin(channel);
  }

  #send({ lane, frame }: Do<"send">): void {
    const served = this.#lanes.get(lane);
    if (served !== undefined && "send" in served) served.send(frame);
  }

  #close(lane: number, end: LaneEnd): void {
    const served = this.#lanes.get(lane);
    if (served === undefined) return;
    if ("lane" in served) served.lane.close(end);
    else served.close(end);
    this.#forget(lane);
  }

  #onEnded(lane: number, end: LaneEnd): void {
    this.#forget(lane);
    this.#batch.now({ is: "ended", lane, end });
  }

  #forget(lane: number): void {
    const served = this.#lanes.get(lane);
    if (served !== undefined && "send" in served) served.file?.close();
    this.#lanes.delete(lane);
  }

  #fill({ child, transfer, faults, share, digests }: Do<"fill">): void {
    const memory = new JoinedFilling(faults);
    try {
      const notes = digests === undefined ? undefined : DigestNotes.open(digests);
      const server = new FaultServer({
        transfer,
        share,
        memory,
        notes,
        clock: realClock,
        onTaken: (taken) => this.#batch.taken(child, taken),
      });
      this.#children.set(child, { server, memory, notes });
      server.start((error) => this.#onFailed(child, error));
    } catch (error) {
      if (!this.#children.has(child)) memory.close();
      this.#onFailed(child, error);
    }
  }

  #onFailed(child: number, error: unknown): void {
    // What is wrong with us is the whole agent's end, as it is in its own thread.
    if (codeOf(error) === "internal") throw error;
    this.#batch.now({ is: "failed", child, code: codeOf(error), message: messageOf(error) });
  }

  #stop({ child, gate }: Do<"stop">): void {
    const served = this.#children.get(child);
    this.#children.delete(child);
    served?.server.stop();
    served?.memory.close();
    served?.notes?.close();
    new Gate(gate).stopped();
  }
}
