import { spawn } from "node:child_process";
import { once } from "node:events";
import { open, rm, truncate } from "node:fs/promises";
import { hrtime } from "node:process";
import { join } from "node:path";
import { diskGuest, importRoot, inGuest, ROOT_IMAGE, runDiskGuest } from "../../test/support/disk-guest.js";
import { whenArrived } from "../../test/support/disk-rows.js";
import { eventually, Hosts, type Host } from "../../test/support/hosts.js";
import { whenTransfersEnd } from "../../test/support/sample-guest.js";
import type { Results } from "./statistics.js";
import { StarNetwork } from "./star-network.js";
import { showProgress, type Bench } from "./suite.js";

const PORT = 8480;
const CHILD_PORT = 8490;
const NBD_PORT = 10_809;
const LINK_MBIT = 1000;
const MIB = 1024 * 1024;
const US_PER_MS = 1000;
/** A base disk of this size, with so much content, on which a guest writes so much of its own. */
const LARGE = { name: "large", sizeMib: 2048, contentMib: 512, writtenMib: 50 };
const EXPORT_DEADLINE_MS = 30_000;

/** Two hosts at the ends of a link; the first has the base disks. */
class DiskLaboratory {
  readonly #network: StarNetwork;
  readonly #a: Host;
  readonly #b: Host;
  readonly #results: Results;

  constructor(network: StarNetwork, hosts: Hosts, results: Results) {
    this.#network = network;
    [this.#a, this.#b] = [hosts.at(0), hosts.at(1)];
    this.#results = results;
  }

  /** Brings everything to the hosts that is not measured: boot files, and the base disks of the first. */
  async prepare(): Promise<void> {
    await importRoot(this.#a);
    const path = join(this.#a.stateDirectory, "large.raw");
    await makeLarge(path);
    await this.#a.call("image.import", { path, identifier: LARGE.name });
    await rm(path);
    await this.#b.call("image.pull", { reference: LARGE.name, from: "a" });
    await this.#b.call("image.pull", { reference: ROOT_IMAGE, from: "a" });
    await this.#firstBoot({});
    await this.#forget();
  }

  /** Boots a guest on a base disk that only the other host has: at once, after it was pulled, and after qemu-img copied it; and once more when it is there. */
  async round(): Promise<void> {
    await this.#onDemand();
    await this.#forget();
    await this.#afterPull();
    await this.#forget();
    await this.#afterConvert();
    await this.#differences();
  }

  async #onDemand(): Promise<void> {
    const before = await this.#sentBytes();
    this.#results.add("first_boot", "ms", await this.#firstBoot({ from: "a" }));
    await whenImagesArrived(this.#b);
    this.#results.add("deploy_wire", "MiB", ((await this.#sentBytes()) - before) / MIB);
    const deployed = await this.#sentBytes();
    this.#results.add("second_boot", "ms", await this.#firstBoot({}));
    this.#results.add("second_deploy_wire", "MiB", ((await this.#sentBytes()) - deployed) / MIB);
  }

  async #afterPull(): Promise<void> {
    const beganUs = nowUs();
    await this.#b.call("image.pull", { reference: ROOT_IMAGE, from: "a" });
    const pulledMs = (nowUs() - beganUs) / US_PER_MS;
    this.#results.add("pull", "ms", pulledMs);
    this.#results.add("first_boot_after_pull", "ms", pulledMs + (await this.#firstBoot({})));
  }

  /** The other way has no host that has the image in the end: the guest is booted where the pull before it left one, and the time is the sum. */
  async #afterConvert(): Promise<void> {
    await this.#b.call("image.pull", { reference: ROOT_IMAGE, from: "a" });
    const convertMs = await this.#convert();
    this.#results.add("pull_qemu_convert", "ms", convertMs);
    this.#results.add("first_boot_after_convert", "ms", convertMs + (await this.#firstBoot({})));
    await this.#forget();
  }

  /** Copies the same file over the same link as the emulator's tools do, and syncs the copy. */
  async #convert(): Promise<number> {
    const address = this.#network.address(0);
    const serve = [
      "qemu-nbd",
      "-r",
      "-f",
      "raw",
      "-t",
      "-b",
      address,
      "-p",
      String(NBD_PORT),
      diskGuest().root,
    ];
    const [program = "", ...args] = [...this.#network.inside(0), ...serve];
    const server = spawn(program, args, { stdio: "ignore" });
    const copy = join(this.#b.stateDirectory, "copy.raw");
    try {
      const url = `nbd://${address}:${NBD_PORT}`;
      const inside = this.#network.inside(1);
      await eventually(
        "the disk is exported",
        () => succeeds([...inside, "qemu-img", "info", url]),
        EXPORT_DEADLINE_MS,
      );
      const beganUs = nowUs();
      await run([...inside, "qemu-img", "convert", "-f", "raw", "-O", "raw", url, copy]);
      await run(["sync", copy]);
      return (nowUs() - beganUs) / US_PER_MS;
    } finally {
      const ended = once(server, "exit");
      server.kill("SIGTERM");
      await ended;
      await rm(copy, { force: true });
    }
  }

  /** Forks a guest to a host that has its base disk: what it has written goes there. */
  async #differences(): Promise<void> {
    const [a, b] = [this.#a, this.#b];
    await runDiskGuest(a, {
      name: "parent",
      hostPort: PORT,
      disks: [{ image: ROOT_IMAGE }, { image: LARGE.name }],
    });
    await b.call("image.pull", { reference: ROOT_IMAGE, from: "a" });
    const write = `dd if=/dev/urandom of=/dev/vdb bs=1M seek=100 count=${LARGE.writtenMib} oflag=direct conv=fsync 2>/dev/null`;
    await inGuest(a, PORT, write);
    const before = await this.#sentBytes();
    await a.call("guest.fork", {
      name: "parent",
      names: ["child"],
      to: ["b"],
      forwards: [`${CHILD_PORT}:80`],
    });
    await inGuest(b, CHILD_PORT, "head -c 1048576 /dev/vdb | wc -c");
    await whenTransfersEnd(a);
    await whenArrived(b);
    this.#results.add("differences_written", "MiB", LARGE.writtenMib);
    this.#results.add("differences_wire", "MiB", ((await this.#sentBytes()) - before) / MIB);
    await remove(b, "child");
    await remove(a, "parent");
    await this.#forget();
  }

  /** From the command until the guest serves HTTP. */
  async #firstBoot(disk: { from?: string }): Promise<number> {
    const beganUs = nowUs();
    await runDiskGuest(this.#b, { name: "guest", hostPort: PORT, disks: [{ image: ROOT_IMAGE, ...disk }] });
    await inGuest(this.#b, PORT, "true");
    const tookMs = (nowUs() - beganUs) / US_PER_MS;
    await remove(this.#b, "guest");
    return tookMs;
  }

  /** The second host has the base disk no more. */
  async #forget(): Promise<void> {
    const { images } = await this.#b.call("image.list", {});
    if (!images.some(({ identifier }) => identifier === ROOT_IMAGE)) return;
    await this.#b.call("image.remove", { reference: ROOT_IMAGE });
    await this.#b.call("image.prune", { unusedForMs: 0, keepOwned: true });
  }

  /** What the first host has sent of disks. */
  async #sentBytes(): Promise<number> {
    return (await this.#a.call("agent.info", {})).blocks.sentBytes;
  }
}

/** Most of a base disk is holes, and its content does not compress. */
async function makeLarge(path: string): Promise<void> {
  const file = await open(path, "w");
  const random = await open("/dev/urandom", "r");
  try {
    const piece = Buffer.alloc(MIB);
    for (let index = 0; index < LARGE.contentMib; index += 1) {
      await random.read(piece, 0, MIB, 0);
      await file.write(piece, 0, MIB, index * 2 * MIB);
    }
  } finally {
    await random.close();
    await file.close();
  }
  await truncate(path, LARGE.sizeMib * MIB);
}

async function whenImagesArrived(host: Host): Promise<void> {
  const areHere = async () =>
    (await host.call("image.list", {})).images.every(({ arriving }) => arriving === undefined);
  await eventually("the base disk is here", areHere, 300_000);
}

async function remove(host: Host, name: string): Promise<void> {
  await host.call("guest.kill", { name });
  await host.call("guest.remove", { name });
}

async function succeeds(words: readonly string[]): Promise<boolean> {
  return run(words).then(
    () => true,
    () => false,
  );
}

async function run([program = "", ...args]: readonly string[]): Promise<void> {
  const child = spawn(program, args, { stdio: "ignore" });
  const [code] = (await once(child, "exit")) as [number | null];
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}`);
}

function nowUs(): number {
  return Number(hrtime.bigint() / 1000n);
}

/**
 * A guest's first boot on a base disk that another host has, at once, after the disk was pulled and after qemu-img copied it, in turns and over one link; and what goes over that for the first and the
 * second guest on a base disk, and for what a guest has written.
 */
export async function measureDisk({ runs, results }: Bench): Promise<void> {
  const network = new StarNetwork(2);
  try {
    const hosts = await Hosts.start(2, {
      port: 7290,
      tls: true,
      configuration: { logLevel: "warn", limits: { memoryMib: 4096 } },
      each: (name) => {
        const index = name.charCodeAt(0) - "a".charCodeAt(0);
        return { address: network.address(index), prefix: network.inside(index) };
      },
    });
    try {
      const laboratory = new DiskLaboratory(network, hosts, results);
      await laboratory.prepare();
      network.setRate(LINK_MBIT);
      for (let round = 0; round < runs; round += 1) {
        showProgress("disk", round, runs);
        await laboratory.round();
      }
      showProgress("disk", runs, runs);
    } finally {
      await hosts.stop();
    }
  } finally {
    network.close();
  }
}
