import { execFile } from "node:child_process";
import { closeSync, openSync, rmSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { realClock, sleep, type SeededRandom } from "../../src/base/index.js";
import { emulatorsBelow, type Host } from "../support/hosts.js";
import type { Field } from "./field.js";
import type { FaultName } from "./plan.js";
import type { Proxy, Weather } from "./proxy.js";

/** Where a fault is injected. */
export interface Scene {
  field: Field;
  random: SeededRandom;
  /** The parent's host, and one of the children's. */
  source: Host;
  target: Host;
  parentPid: number;
  /** Emulators there were before the operation. */
  oldEmulators: ReadonlySet<number>;
  /** Emulators that wait for a child on the target. */
  warmEmulators: readonly number[];
}

/** What a fault did that the judge has to know. */
export interface Injected {
  /** In words, for the record. */
  what: string;
  /** Emulators that were ended. */
  killed: readonly number[];
  /** The host whose memory was full: the kernel ends an emulator there whose guest touches a page that it never had. */
  full?: Host;
}

const run = promisify(execFile);
const BALLAST = "chaos-ballast";
const SLOW_BYTES_PER_S = 512 * 1024;

/** Injects a fault, and resolves when the world is as before: the network well, the agents running, the room free. */
export async function inject(fault: FaultName, scene: Scene): Promise<Injected> {
  const done = (what: string, killed: readonly number[] = []): Injected => ({ what, killed });
  const { field, source, target } = scene;
  switch (fault) {
    case "cut-one":
      return done(cutOne(scene));
    case "cut-all":
      for (const proxy of field.proxies) proxy.cut();
      return done("every connection was cut");
    case "partition":
      return done(await weather(scene, { refusing: true }, { cut: true, leastMs: 300, mostMs: 2500 }));
    case "stall":
      return done(await weather(scene, { stalled: true }, { leastMs: 200, mostMs: 2000 }));
    case "swallow":
      return done(await weather(scene, { swallowing: true }, { leastMs: 100, mostMs: 1500 }));
    case "delay":
      return done(
        await weather(scene, { delayMs: 5 + scene.random.below(80) }, { leastMs: 500, mostMs: 2000 }),
      );
    case "throttle":
      return done(await weather(scene, { bytesPerSecond: SLOW_BYTES_PER_S }, { leastMs: 500, mostMs: 2000 }));
    case "truncate":
      return done(await weather(scene, { truncating: true }, { leastMs: 300, mostMs: 600 }));
    case "freeze-parent-agent":
      return done(await freeze(source, 200 + scene.random.below(2000)));
    case "freeze-child-agent":
      return done(await freeze(target, 200 + scene.random.below(2000)));
    case "freeze-for-long":
      return done(await freeze(target, 11_000 + scene.random.below(3000)));
    case "kill-parent-agent":
      return done(await startAgain(scene, source, "SIGKILL"));
    case "kill-child-agent":
      return done(await startAgain(scene, target, "SIGKILL"));
    case "restart-parent-agent":
      return done(await startAgain(scene, source, "SIGTERM"));
    case "restart-child-agent":
      return done(await startAgain(scene, target, "SIGTERM"));
    case "kill-parent-emulator":
      return done("the parent's emulator was killed", kill([scene.parentPid]));
    case "kill-child-emulator":
      return done("a child's emulator was killed", kill(childEmulators(scene).slice(0, 1)));
    case "kill-warm-emulator":
      return done("the waiting emulator was killed", kill(scene.warmEmulators));
    case "fill-parent-memory":
      return { ...done(await fill(scene, source.memoryDirectory)), full: source };
    case "fill-child-memory":
      return { ...done(await fill(scene, target.memoryDirectory)), full: target };
    case "fill-parent-disk":
      return done(await fill(scene, source.stateDirectory));
    case "fill-child-disk":
      return done(await fill(scene, target.stateDirectory));
  }
}

/** The two hosts' proxies: bytes of a transfer go through one or the other, depending on who dialled. */
function between({ field, source, target }: Scene): Proxy[] {
  return [...new Set([field.proxyOf(source), field.proxyOf(target)])];
}

/** A connection of the seed; the page lanes lead to the parent's host, so that is where it is mostly looked for. */
function cutOne(scene: Scene): string {
  const lanes = scene.field.proxyOf(scene.source).connections;
  const others = scene.field.proxyOf(scene.target).connections;
  const from = lanes.length > 0 && scene.random.chance(0.75) ? lanes : [...lanes, ...others];
  if (from.length === 0) return "there was no connection to cut";
  const connection = scene.random.pick(from);
  connection.cut();
  return `a connection that had carried ${connection.bytes} bytes was cut`;
}

async function weather(
  scene: Scene,
  change: Partial<Weather>,
  options: { leastMs: number; mostMs: number; cut?: boolean },
): Promise<string> {
  const lastsMs = options.leastMs + scene.random.below(options.mostMs - options.leastMs);
  const proxies = between(scene);
  for (const proxy of proxies) proxy.set(change);
  if (options.cut === true) for (const proxy of proxies) proxy.cut();
  await sleep(realClock, lastsMs);
  for (const proxy of proxies) proxy.clear();
  return `${JSON.stringify(change)} for ${lastsMs} ms`;
}

async function freeze(host: Host, lastsMs: number): Promise<string> {
  const { pid } = host;
  process.kill(pid, "SIGSTOP");
  try {
    await sleep(realClock, lastsMs);
  } finally {
    process.kill(pid, "SIGCONT");
  }
  return `agent ${host.name} was stopped for ${lastsMs} ms`;
}

async function startAgain(scene: Scene, host: Host, signal: "SIGKILL" | "SIGTERM"): Promise<string> {
  await host.end(signal);
  const awayMs = scene.random.below(800);
  await sleep(realClock, awayMs);
  await scene.field.restart(host);
  return `agent ${host.name} was ended by ${signal} and started again ${awayMs} ms later`;
}

function childEmulators(scene: Scene): number[] {
  return emulatorsBelow(scene.target.stateDirectory).filter((pid) => !scene.oldEmulators.has(pid));
}

function kill(pids: readonly number[]): readonly number[] {
  return pids.filter((pid) => {
    try {
      process.kill(pid, "SIGKILL");
      return true;
    } catch {
      return false;
    }
  });
}

/** Takes all room there is on a file system, for a while. */
async function fill(scene: Scene, directory: string): Promise<string> {
  const lastsMs = 200 + scene.random.below(800);
  const path = join(directory, BALLAST);
  let takenBytes = 0;
  closeSync(openSync(path, "w"));
  try {
    // Others take and give room meanwhile.
    for (let turn = 0; turn < 3; turn += 1) {
      const { bavail, bsize } = await statfs(directory);
      if (bavail === 0) break;
      await run("fallocate", ["-o", String(takenBytes), "-l", String(bavail * bsize), path]).catch(() => {});
      takenBytes += bavail * bsize;
    }
    await sleep(realClock, lastsMs);
  } finally {
    rmSync(path, { force: true });
  }
  return `${directory} was full for ${lastsMs} ms`;
}
