import { PAGE_BYTES } from "../base/index.js";
import type { Frame } from "../wire/index.js";

/** Whether bulk pages are compressed: as is measured to be faster, always where it saves something, or never. */
export type CompressionChoice = "auto" | "lz4" | "none";

/** A sample has so much content, which is more than the child credits at a time, and takes so long to send. */
const SAMPLE_BYTES = 768 * 1024;
const SAMPLE_US = 4000;
/** Samples of each kind that one probe takes; fewer where they differ so much that there is no doubt. */
const SAMPLES = 3;
const SAMPLES_BEYOND_DOUBT = 2;
const BEYOND_DOUBT = 2;
/** Compressing costs the processors of two hosts, so it must bring more than nothing to be begun, and something to go on. */
const BEGIN_GAIN = 1.15;
const GO_ON_GAIN = 1.05;
/** With fewer bytes of content in a byte of lz4 nothing can be gained, whatever a probe has measured on processors that others use too. */
const SMALLEST_RATIO = 1.05;
/** From one probe to the next; twice as long each time that nothing has changed. */
const FIRST_INTERVAL_US = 2_000_000;
const LONGEST_INTERVAL_US = 60_000_000;

/** Frames that are sent without a try after one in which lz4 saved nothing; twice as many after each further one. */
const FIRST_SKIP_FRAMES = 1;
const MOST_SKIPPED_FRAMES = 32;

type Mode = "raw" | "lz4";

/** Consecutive frames of one kind, on their way to the child. `fromByte` and `toByte` count all bytes sent. */
interface Sample {
  mode: Mode;
  fromByte: number;
  toByte: number;
  contentBytes: number;
  tookUs: number;
  beganUs: number;
  /** When all before it was credited: since then the link and the child have worked on this. */
  sinceUs: number | undefined;
}

/** What one kind came to in the latest probe. */
interface Measured {
  /** Content that the child took each second, of each sample. */
  bytesPerSecond: number[];
  contentBytes: number;
  wireBytes: number;
  tookUs: number;
}

/** How compression stands; rates are of guest memory, after it is unpacked. */
export interface CompressionProgress {
  choice: CompressionChoice;
  now: "lz4" | "none";
  /** By the latest probe that is over: what the child took each second either way, what lz4 makes of content, and what it costs the parent. */
  measured?: { rawBytesPerSecond: number; lz4BytesPerSecond: number; ratio: number; lz4UsPerMib: number };
}

export interface CompressionOptions {
  choice: CompressionChoice;
  /** What `auto` begins with. */
  first: boolean;
  /** That is how the latest transfer to the same host went: `auto` need not look at once whether it is so. */
  learned?: boolean;
  /** Bytes of content and microseconds of a sample at least, other than usual. */
  sample?: { bytes: number; us: number };
}

/**
 * Whether the next frame of bulk is compressed. `auto` sends a few frames each way in turns, measures from one credit to another what the child has taken, with all
 * that compressing costs either host and saves on the link, and goes on the faster way. It looks again now and then.
 */
export class AdaptiveCompression {
  readonly #sample: { bytes: number; us: number };
  #choice: CompressionChoice;
  #mode: Mode;
  #settled: Mode | undefined;
  #allowed = true;
  #probing: Record<Mode, Measured> | undefined;
  #filling: Sample | undefined;
  #underway: Sample[] = [];
  #measured: CompressionProgress["measured"];
  #sentBytes = 0;
  #creditedBytes = 0;
  /** Undefined for an interval after the next frame. */
  #probeAtUs: number | undefined;
  #intervalUs = FIRST_INTERVAL_US;
  /** Frames still to be sent without a try, and how many it will be after the next one in vain. */
  #skips = 0;
  #nextSkips = FIRST_SKIP_FRAMES;

  constructor(options: CompressionOptions) {
    this.#sample = options.sample ?? { bytes: SAMPLE_BYTES, us: SAMPLE_US };
    this.#choice = options.choice;
    this.#mode = options.first ? "lz4" : "raw";
    this.choose(options.choice);
    if (options.learned === true && options.choice === "auto") this.#trust();
  }

  /** Changes what was chosen; `auto` begins with how it is sent now. */
  choose(choice: CompressionChoice): void {
    this.#choice = choice;
    if (choice !== "auto") this.#mode = choice === "lz4" ? "lz4" : "raw";
    this.#settled = undefined;
    this.#intervalUs = FIRST_INTERVAL_US;
    this.#measured = undefined;
    if (choice === "auto") this.#probe();
    else this.#stopProbing();
  }

  /** The child cannot read it: nothing is compressed any more. */
  forbid(): void {
    this.#allowed = false;
    this.#stopProbing();
  }

  /** Whether the next frame is to be compressed. */
  get on(): boolean {
    return this.#allowed && this.#mode === "lz4" && this.#skips === 0;
  }

  progress(): CompressionProgress {
    const now = this.#allowed && this.#mode === "lz4" ? "lz4" : "none";
    return {
      choice: this.#choice,
      now,
      ...(this.#measured === undefined ? {} : { measured: this.#measured }),
    };
  }

  /** A frame was sent: bytes on the wire, bytes of pages that are not zero in it, and how long it took to make and send it. */
  sent(frame: { wireBytes: number; contentBytes: number; tookUs: number }, nowUs: number): void {
    const fromByte = this.#sentBytes;
    this.#sentBytes += frame.wireBytes;
    if (this.#choice !== "auto" || !this.#allowed || frame.contentBytes === 0) return;
    if (this.#probing === undefined) {
      this.#probeAtUs ??= nowUs + this.#intervalUs;
      if (nowUs >= this.#probeAtUs) this.#probe();
      else if (this.#mode === "lz4") this.#learnFrom(frame);
      return;
    }
    if (this.#countOf(this.#mode) >= SAMPLES) return this.#turnToLacking();
    const sample = (this.#filling ??= this.#newSample(fromByte, nowUs));
    sample.contentBytes += frame.contentBytes;
    sample.tookUs += frame.tookUs;
    if (sample.contentBytes < this.#sample.bytes || nowUs - sample.beganUs < this.#sample.us) return;
    sample.toByte = this.#sentBytes;
    this.#underway.push(sample);
    this.#filling = undefined;
    this.#mode = otherOf(this.#mode);
  }

  /** The child has taken so many bytes more. */
  credited(bytes: number, nowUs: number): void {
    this.#creditedBytes += bytes;
    if (this.#probing === undefined) return;
    for (const sample of [...this.#underway, ...(this.#filling === undefined ? [] : [this.#filling])])
      if (this.#creditedBytes >= sample.fromByte) sample.sinceUs ??= nowUs;
    for (let [first] = this.#underway; first !== undefined; [first] = this.#underway) {
      if (this.#creditedBytes < first.toByte) break;
      this.#underway.shift();
      this.#take(first, nowUs);
    }
  }

  /** There is nothing to send at the moment: how long that takes says nothing about the link. */
  idle(): void {
    this.#filling = undefined;
  }

  /** The connection is lost, with all that was in flight. */
  reset(): void {
    this.#sentBytes = 0;
    this.#creditedBytes = 0;
    if (this.#probing !== undefined) this.#probe();
  }

  /** Begins as if a probe had just found it so. */
  #trust(): void {
    this.#settled = this.#mode;
    this.#probeAtUs = undefined;
    this.#stopProbing();
  }

  /** While content does not become less, trying is given up for longer and longer; one frame that does become less begins it anew. */
  #learnFrom({ wireBytes, contentBytes }: { wireBytes: number; contentBytes: number }): void {
    if (this.#skips > 0) {
      this.#skips -= 1;
    } else if (wireBytes < contentBytes) {
      this.#nextSkips = FIRST_SKIP_FRAMES;
    } else {
      this.#skips = this.#nextSkips;
      this.#nextSkips = Math.min(2 * this.#nextSkips, MOST_SKIPPED_FRAMES);
    }
  }

  #probe(): void {
    this.#skips = 0;
    const nothing = () => ({ bytesPerSecond: [], contentBytes: 0, wireBytes: 0, tookUs: 0 });
    this.#probing = { raw: nothing(), lz4: nothing() };
    this.#filling = undefined;
    this.#underway = [];
  }

  #stopProbing(): void {
    this.#skips = 0;
    this.#probing = undefined;
    this.#filling = undefined;
    this.#underway = [];
  }

  #newSample(fromByte: number, nowUs: number): Sample {
    // With nothing in flight before it, the link begins on it now.
    const sinceUs = this.#creditedBytes >= fromByte ? nowUs : undefined;
    const sample = { mode: this.#mode, fromByte, toByte: fromByte, sinceUs, beganUs: nowUs };
    return { ...sample, contentBytes: 0, tookUs: 0 };
  }

  /** A sample that said nothing may have to be taken once more. */
  #turnToLacking(): void {
    if (this.#countOf(otherOf(this.#mode)) < SAMPLES) this.#mode = otherOf(this.#mode);
  }

  /** Samples of a kind that are over or on their way. */
  #countOf(mode: Mode): number {
    const over = this.#probing?.[mode].bytesPerSecond.length ?? 0;
    return over + this.#underway.filter((sample) => sample.mode === mode).length;
  }

  #take(sample: Sample, nowUs: number): void {
    const elapsedUs = nowUs - (sample.sinceUs ?? nowUs);
    // Credited in one go with what was before it: it says nothing, and another takes its place.
    if (elapsedUs <= 0 || this.#probing === undefined) return;
    const measured = this.#probing[sample.mode];
    measured.bytesPerSecond.push((sample.contentBytes / elapsedUs) * 1e6);
    measured.contentBytes += sample.contentBytes;
    measured.wireBytes += sample.toByte - sample.fromByte;
    measured.tookUs += sample.tookUs;
    this.#decide(this.#probing, nowUs);
  }

  #decide({ raw, lz4 }: Record<Mode, Measured>, nowUs: number): void {
    const least = Math.min(raw.bytesPerSecond.length, lz4.bytesPerSecond.length);
    if (least < SAMPLES_BEYOND_DOUBT) return;
    const rawBytesPerSecond = medianOf(raw.bytesPerSecond);
    const lz4BytesPerSecond = medianOf(lz4.bytesPerSecond);
    const gain = lz4BytesPerSecond / rawBytesPerSecond;
    if (least < SAMPLES && gain < BEYOND_DOUBT && gain > 1 / BEYOND_DOUBT) return;
    const ratio = lz4.contentBytes / lz4.wireBytes;
    const isFaster = gain >= (this.#settled === "lz4" ? GO_ON_GAIN : BEGIN_GAIN);
    const mode = isFaster && ratio >= SMALLEST_RATIO ? "lz4" : "raw";
    this.#intervalUs =
      mode === this.#settled ? Math.min(2 * this.#intervalUs, LONGEST_INTERVAL_US) : FIRST_INTERVAL_US;
    this.#probeAtUs = nowUs + this.#intervalUs;
    this.#settled = mode;
    this.#mode = mode;
    const costOf = ({ tookUs, contentBytes }: Measured) => (tookUs / contentBytes) * 2 ** 20;
    this.#measured = {
      rawBytesPerSecond: Math.round(rawBytesPerSecond),
      lz4BytesPerSecond: Math.round(lz4BytesPerSecond),
      ratio,
      lz4UsPerMib: Math.max(0, costOf(lz4) - costOf(raw)),
    };
    this.#stopProbing();
  }
}

function otherOf(mode: Mode): Mode {
  return mode === "lz4" ? "raw" : "lz4";
}

/** Bytes of pages in a frame that are not all zero. */
export function contentBytesOf(frame: Frame): number {
  if (frame.kind !== "pages") return 0;
  let pages = 0;
  for (const run of frame.runs) if (run.encoding !== "zero") pages += run.pageCount;
  return pages * PAGE_BYTES;
}

function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}
