/** A file system that loses, at a moment of the test's, whatever was not synced: what a power cut does to a host's disk. */
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { eventually } from "./hosts.js";

/** EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH (Linux, fs/ext4/ext4.h): from now on nothing is written, neither data nor journal. */
const SHUTDOWN =
  'open(my $directory, "<", $ARGV[0]) or die $!; my $flags = pack("L", 2); ioctl($directory, 0x8004587d, $flags) or die $!';

function run(program: string, ...args: string[]): void {
  const env = { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` };
  execFileSync(program, args, { env, stdio: ["ignore", "ignore", "pipe"] });
}

export class LossyDisk {
  readonly #directory: string;
  readonly #file: string;

  /** Makes and mounts one at a directory, which is made. */
  constructor(directory: string, sizeMib: number) {
    this.#directory = directory;
    this.#file = `${directory}.ext4`;
    mkdirSync(directory, { recursive: true });
    run("truncate", "-s", `${sizeMib}M`, this.#file);
    run("mke2fs", "-q", "-t", "ext4", this.#file);
    this.#mount();
  }

  /** What is not synced now is lost. Whoever uses it is told of errors from here on. */
  cut(): void {
    run("perl", "-e", SHUTDOWN, this.#directory);
  }

  /** Mounts it anew, as a host that starts does. Nobody may use it any more. */
  async powerOn(): Promise<void> {
    await this.#unmount();
    this.#mount();
  }

  async end(): Promise<void> {
    await this.#unmount();
    rmSync(this.#file, { force: true });
  }

  #mount(): void {
    run("mount", "-o", "loop", this.#file, this.#directory);
  }

  /** Processes that were killed let go of it a moment later. */
  async #unmount(): Promise<void> {
    const tryIt = () => {
      try {
        run("umount", this.#directory);
        return true;
      } catch {
        return false;
      }
    };
    await eventually(`${this.#directory} is not used any more`, tryIt);
  }
}
