import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { ArrivalView, ImageView } from "../../src/control/index.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { makeRaw, MIB } from "../support/images.js";
import { ask, runSample, sampleGuest, whenReady } from "../support/sample-guest.js";

const SIZE_BYTES = 320 * MIB;

/** What the sample guest says of the rows it commits to its disk. */
interface Rows {
  committed: number;
  wrong: number;
  after: number;
}

describe("guests on base disks that are still on their way", () => {
  let hosts: Hosts;
  let library: Host;
  let host: Host;
  let scratch: string;

  before(async () => {
    scratch = mkdtempSync(join(tmpdir(), "ri-"));
    const configurationOf = (name: string) =>
      name === "b" ? { images: { sources: ["a"], libraries: [join(scratch, "slow")] } } : {};
    hosts = await Hosts.start(2, {
      tls: true,
      each: (name) => ({ configuration: configurationOf(name) }),
    });
    [library, host] = [hosts.at(0), hosts.at(1)];
    mkdirSync(join(scratch, "slow"));
  });
  after(async () => {
    await hosts.stop();
    rmSync(scratch, { recursive: true });
  });

  /** An image of `dataMib` random bytes, with what tells it apart from others. */
  async function newImage(name: string, seed: number, dataMib: number): Promise<string> {
    const path = await makeRaw(join(scratch, name), { seed, sizeBytes: SIZE_BYTES });
    const file = await open(path, "r+");
    for (let at = 0; at < dataMib; at += 4) {
      const random = execFileSync("head", ["-c", String(4 * MIB), "/dev/urandom"], { maxBuffer: 8 * MIB });
      await file.write(random, 0, random.length, at * MIB);
    }
    await file.close();
    const { image } = await library.call("image.import", { path, identifier: name });
    rmSync(path);
    return image.digest;
  }

  const imagesOf = (at: Host) => join(at.stateDirectory, "images");
  const viewOf = async (digest: string): Promise<ImageView | undefined> =>
    (await host.call("image.list", {})).images.find((image) => image.digest === digest);
  const arrivalIn = async (guest: string): Promise<ArrivalView | undefined> =>
    (await host.call("guest.show", { name: guest })).guest.disks?.[0]?.chain.at(-1)?.arriving;
  const rows = (port: number, path: string) => ask<Rows>(host, port, `/disk/${path}`);

  async function whenHere(digest: string): Promise<void> {
    const isHere = async () => {
      const view = await viewOf(digest);
      return (
        view !== undefined &&
        view.arriving === undefined &&
        readdirSync(imagesOf(host)).length ===
          readdirSync(imagesOf(host)).filter((name) => !name.startsWith(".")).length
      );
    };
    await eventually(`image ${digest} is here`, isHere, 60_000);
  }

  test("one runs at once on what another host has, and it is an image of this one's in the end", async () => {
    const digest = await newImage("debian", 3, 200);
    const disk = { image: "debian", sizeBytes: 2 * SIZE_BYTES };
    const guest = await runSample(host, { name: "web", hostPort: 8080, disks: [disk] });
    assert.equal(guest.disks?.[0]?.chain.at(-1)?.id, digest);
    await rows(8080, "start?tag=1&pause=2000");
    await whenHere(digest);
    assert.deepEqual(
      readdirSync(join(host.stateDirectory, "disks")).filter((name) => name.startsWith(".")),
      [],
      "nothing is left of how it came",
    );
    assert.equal(await arrivalIn("web"), undefined);
    const { committed } = await rows(8080, "status");
    await eventually("it goes on", async () => (await rows(8080, "status")).committed > committed + 5);
    const said = await rows(8080, "verify");
    assert.deepEqual([said.wrong, said.after], [0, 0], JSON.stringify(said));
    assert.equal((await host.call("image.verify", { reference: "debian" })).image.problem, undefined);
    const descriptors = execFileSync("ls", ["-l", `/proc/${guest.pid}/fd`]).toString();
    assert.ok(!descriptors.includes(".filling-"), descriptors);
    const lines = host.log.split("\n").filter((line) => line.includes("all of an image is here"));
    const { wireBytes } = JSON.parse(lines[0] ?? "{}") as { wireBytes: number };
    assert.ok(wireBytes > 200 * MIB && wireBytes < 215 * MIB, `${wireBytes} bytes came`);
    const before = statSync(join(imagesOf(host), digest, "disk.raw"));
    await host.call("guest.run", { ...sampleGuest(), name: "second", disks: [{ image: "debian" }] });
    const again = statSync(join(imagesOf(host), digest, "disk.raw"));
    assert.deepEqual([again.ino, again.mtimeMs], [before.ino, before.mtimeMs]);
    assert.equal(host.log.split("an image is brought").length - 1, 1, "the second time nothing is asked for");
    assert.ok(!existsSync(join(host.stateDirectory, "arriving", `${digest}.json`)));
    for (const name of ["web", "second"]) await host.call("guest.kill", { name });
  });

  test("one whose chunk is wrong in a library is refused there by name, and comes from another host", async () => {
    const digest = await newImage("golden", 5, 60);
    const copy = join(scratch, "slow", digest);
    cpSync(join(imagesOf(library), digest), copy, { recursive: true });
    chmodSync(join(copy, "disk.raw"), 0o600);
    const file = await open(join(copy, "disk.raw"), "r+");
    await file.write(Buffer.from("wrong"), 0, 5, 40 * MIB + 123);
    await file.close();
    const disks = [{ image: "golden" }];
    await host.call("guest.run", { ...sampleGuest(), name: "third", disks });
    await whenHere(digest);
    const refused = host.log.split("\n").filter((line) => line.includes("a part of an image was refused"));
    assert.equal(refused.length, 1, refused.join("\n"));
    assert.match(refused[0] ?? "", /bytes 41943040 to 42991615/);
    assert.equal((await host.call("image.verify", { reference: "golden" })).image.problem, undefined);
    await host.call("guest.kill", { name: "third" });
  });

  test("both agents are killed while it comes: the guest waits, and goes on where it was", async () => {
    const digest = await newImage("large", 7, 280);
    const disk = { image: "large", from: "a", sizeBytes: 2 * SIZE_BYTES };
    const network = { mode: "user" as const, forwards: ["8081:80"] };
    await host.call("guest.run", { ...sampleGuest(), name: "fourth", network, disks: [disk] });
    await library.end("SIGKILL");
    await eventually("it says that it waits", async () => (await arrivalIn("fourth"))?.message !== undefined);
    const { hereBytes = 0 } = (await viewOf(digest))?.arriving ?? {};
    assert.ok(hereBytes < SIZE_BYTES, "it was not all here");
    const whole = { ...sampleGuest(), name: "whole", disks: [{ image: "large", differencing: false }] };
    await assert.rejects(host.call("guest.run", whole), { code: "not-ready", message: /on its way/ });
    const clear = async () => (await host.call("image.prune", { unusedForMs: 0 })).left;
    assert.deepEqual(await clear(), [], "a guest waits for it");
    await host.end("SIGKILL");
    await host.start();
    assert.deepEqual(await clear(), [], "a guest waits for it still");
    assert.equal((await host.guests()).get("fourth")?.state, "running");
    await library.start();
    await whenReady(host, "fourth");
    await rows(8081, "start?tag=1&pause=2000");
    await whenHere(digest);
    const { committed } = await rows(8081, "status");
    await eventually("it goes on", async () => (await rows(8081, "status")).committed > committed + 5);
    const said = await rows(8081, "verify");
    assert.deepEqual([said.wrong, said.after], [0, 0], JSON.stringify(said));
    assert.equal((await host.call("image.verify", { reference: "large" })).image.problem, undefined);
  });
});
