import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { EventData } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { MIB, makeRaw } from "../support/images.js";

const SIZE_MIB = 192;
const SIZE_BYTES = SIZE_MIB * MIB;

/** What of an image on its way was safe on the disk; all of it when it is one by now. */
function notedBytes(images: string, digest: string): number {
  if (existsSync(join(images, digest))) return SIZE_BYTES;
  const left = readdirSync(images).find((name) => name.startsWith(".filling-") && name.endsWith(digest));
  assert.ok(left !== undefined);
  const bits = readFileSync(join(images, left, "noted"));
  return bits.reduce((sum, byte) => sum + byte.toString(2).replaceAll("0", "").length, 0) * 65_536;
}

describe("images between hosts", () => {
  let hosts: Hosts;
  let library: Host;
  let host: Host;
  let scratch: string;

  before(async () => {
    scratch = mkdtempSync(join(tmpdir(), "ramet-pull-"));
    hosts = await Hosts.start(2, { tls: true });
    [library, host] = [hosts.at(0), hosts.at(1)];
  });
  after(async () => {
    await hosts.stop();
    rmSync(scratch, { recursive: true });
  });

  /** An image of the library with `dataMib` of random bytes. */
  async function newImage(name: string, dataMib: number): Promise<string> {
    const path = await makeRaw(join(scratch, name), { seed: dataMib, sizeBytes: SIZE_BYTES });
    const file = await open(path, "r+");
    for (let at = 0; at < dataMib; at += 1) {
      const random = execFileSync("head", ["-c", String(MIB), "/dev/urandom"], { maxBuffer: 2 * MIB });
      await file.write(random, 0, MIB, at * MIB);
    }
    await file.close();
    const { image } = await library.call("image.import", { path, identifier: name });
    return image.digest;
  }

  test("an image is copied once; the second time nothing moves, whoever asks and whatever it is called", async () => {
    const digest = await newImage("debian", 40);
    const first = await host.call("image.pull", { reference: "debian", from: library.url });
    assert.deepEqual([first.image.digest, first.image.identifier], [digest, "debian"]);
    const wireMib = first.wireBytes / MIB;
    assert.ok(wireMib > 39 && wireMib < 44, `${wireMib} MiB came for 40 MiB of content of a disk of 192 MiB`);
    const again = await host.call("image.pull", {
      reference: "debian",
      from: library.url,
      identifier: "other",
    });
    assert.deepEqual([again.wireBytes, again.image.identifier], [0, "other"]);
    assert.equal((await host.call("image.verify", { reference: "debian" })).image.problem, undefined);
    const images = join(host.stateDirectory, "images");
    assert.deepEqual(readdirSync(images), [digest]);
    execFileSync("cmp", [
      join(images, digest, "disk.raw"),
      join(library.stateDirectory, "images", digest, "disk.raw"),
    ]);
    await eventually("the library's files are closed", () => {
      const links = readdirSync(`/proc/${library.pid}/fd`).length;
      const held = execFileSync("ls", ["-l", `/proc/${library.pid}/fd`]).toString();
      return links > 0 && !held.includes(digest);
    });
  });

  test("what a tenant has not there it cannot bring here, and no host brings from itself", async () => {
    const pull = (fields: { reference: string; from: string; tenant?: string }) =>
      host.call("image.pull", fields);
    await assert.rejects(pull({ reference: "nothing", from: library.url }), { code: "no-such-image" });
    await assert.rejects(pull({ reference: "debian", from: library.url, tenant: "acme" }), {
      code: "no-such-image",
    });
    await assert.rejects(pull({ reference: "debian", from: host.url }), { code: "bad-request" });
    await assert.rejects(pull({ reference: "debian", from: "127.0.0.77:1" }), { code: "unreachable" });
  });

  test("both agents are killed while it comes, and it goes on where it was", async () => {
    const digest = await newImage("large", 150);
    const seen: EventData<"image">[] = [];
    const begin = async (): Promise<unknown> => {
      host.client.onEvent(({ event, data }) => void (event === "image" && seen.push(data)));
      return host.call("image.pull", { reference: "large", from: library.url, work: 1 });
    };
    // It is not told how it ended.
    const killed = begin().catch(() => {});
    await eventually("some of it is here", () => (seen.at(-1)?.doneBytes ?? 0) > 60 * MIB);
    await host.end("SIGKILL");
    await killed;
    const notedMib = notedBytes(join(host.stateDirectory, "images"), digest) / MIB;
    await host.start();
    const pull = () => host.call("image.pull", { reference: "large", from: library.url });
    // It may not have come as far as to know what it wants when the library ends.
    const pulled = pull().catch(() => undefined);
    await library.end("SIGKILL");
    await library.start();
    const { image, wireBytes } = (await pulled) ?? (await pull());
    assert.equal(image.digest, digest);
    assert.ok(
      wireBytes / MIB < SIZE_MIB - notedMib + 8,
      `${wireBytes} bytes came after ${notedMib} MiB were noted`,
    );
    await host.call("image.verify", { reference: "large" });
  });

  test("a damaged image is brought again, which puts it right, and not taken for one that is here", async () => {
    const digest = await newImage("worn", 3);
    const pull = () => host.call("image.pull", { reference: "worn", from: library.url });
    await pull();
    const path = join(host.stateDirectory, "images", digest, "disk.raw");
    execFileSync("chmod", ["u+w", path]);
    const file = await open(path, "r+");
    await file.write(Buffer.from("worn"), 0, 4, MIB + 7);
    await file.close();
    await assert.rejects(host.call("image.verify", { reference: "worn" }), { code: "damaged" });
    const { image, wireBytes } = await pull();
    assert.equal(image.problem, undefined);
    assert.ok(wireBytes > 2 * MIB, `${wireBytes} bytes came`);
    await host.call("image.verify", { reference: "worn" });
    assert.ok(readdirSync(join(host.stateDirectory, "images")).every((name) => !name.startsWith(".")));
  });

  test("a full file system is told, and it goes on when there is room", async () => {
    const images = join(scratch, "small");
    mkdirSync(images);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64m", "none", images]);
    const others = await Hosts.start(2, {
      configuration: { images: { directories: [images] } },
      each: (name) => ({
        configuration: name === "a" ? { images: {} } : {},
      }),
      port: 7801,
    });
    try {
      const [source, small] = [others.at(0), others.at(1)];
      const ballast = join(images, "ballast");
      writeFileSync(ballast, Buffer.alloc(40 * MIB, 1));
      const path = join(scratch, "debian");
      await source.call("image.import", { path, identifier: "debian" });
      const phases = new Set<string>();
      small.client.onEvent(({ event, data }) => void (event === "image" && phases.add(data.phase)));
      const pulled = small.call("image.pull", { reference: "debian", from: source.url, work: 1 });
      await eventually("it is full", () => phases.has("full"));
      assert.ok(statfsSync(images).bavail * 4096 < 2 * MIB);
      rmSync(ballast);
      const { image } = await pulled;
      assert.equal(image.problem, undefined);
      await small.call("image.verify", { reference: "debian" });
    } finally {
      await others.stop();
      execFileSync("umount", [images]);
    }
  });
});
