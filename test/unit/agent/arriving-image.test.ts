import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { ImagePull } from "../../../src/agent/blocks/image-pulls.js";
import { ArrivingImage, type ArrivingImageHost } from "../../../src/agent/images/arriving-image.js";
import { instancesIn, type ArrivingRecord } from "../../../src/agent/images/arriving-record.js";
import { deferred, realClock, silentLog, type Deferred } from "../../../src/base/index.js";
import { FileSource, type HeldImage, type ImageStore } from "../../../src/disk/index.js";
import { allData, makeRaw, MIB, openStore, withDirectory } from "../../support/images.js";
import { until } from "../../support/lane-pair.js";

interface Signals {
  arrived: Deferred<HeldImage>;
  localised: Deferred<boolean>;
  settled: Deferred<undefined>;
}

/** An image that one tenant's guest has begun to bring to a host, from the host's own store, when it is told to. */
class Coming {
  readonly store: ImageStore;
  readonly image: ArrivingImage;
  readonly #disk: FileSource;
  readonly #raw: string;
  readonly #signals: Signals;

  private constructor(
    parts: { store: ImageStore; image: ArrivingImage; disk: FileSource; raw: string },
    signals: Signals,
  ) {
    ({ store: this.store, image: this.image, disk: this.#disk, raw: this.#raw } = parts);
    this.#signals = signals;
  }

  static async begin(directory: string, as: { tenant: string; identifier: string }): Promise<Coming> {
    const raw = await makeRaw(join(directory, "raw"), { seed: 1, sizeBytes: MIB });
    const elsewhere = await openStore(join(directory, "elsewhere"));
    const { digest, sizeBytes } = await elsewhere.import(raw, { tenant: "default" });
    await elsewhere.close();
    const imagesDirectory = join(directory, "images");
    const store = await openStore(imagesDirectory);
    const socketDirectory = join(directory, "run");
    await mkdir(socketDirectory);
    const file = join(imagesDirectory, "unfinished");
    writeFileSync(file, "");
    const signals: Signals = { arrived: deferred(), localised: deferred(), settled: deferred() };
    const disk = await FileSource.open(raw, allData);
    const pull = {
      file,
      disk,
      read: () => () => {},
      image: signals.arrived.promise,
      progress: { phase: "copy", from: "elsewhere", hereBytes: 0, wireBytes: 0 },
    };
    const host: ArrivingImageHost = {
      images: store,
      pulls: { begin: () => Promise.resolve(pull as unknown as ImagePull) },
      imagesDirectory,
      socketDirectory,
      hostId: "hosta",
      findData: allData,
      clock: realClock,
      log: silentLog,
      origins: () => [],
      localise: () => signals.localised.promise,
      settled: () => Promise.resolve(signals.settled.resolve(undefined)),
    };
    const key = "00000000-0000-4000-8000-000000000001";
    const record: ArrivingRecord = { version: 1, digest, sizeBytes, ...as, key, origins: [], sinceMs: 0 };
    const image = await ArrivingImage.begin(record, host);
    assert.ok(image !== undefined, "it is on its way");
    return new Coming({ store, image, disk, raw }, signals);
  }

  /** All of it is here; guests still read it on the socket. */
  async arrive(): Promise<void> {
    const { digest } = await this.store.import(this.#raw, { tenant: "default" });
    await this.store.remove(digest, "default");
    this.#signals.arrived.resolve(await this.store.hold(digest, "default"));
  }

  /** Guests read it where it lies. */
  async settle(): Promise<void> {
    this.#signals.localised.resolve(true);
    await this.#signals.settled.promise;
  }

  async usedBy(): Promise<readonly string[] | undefined> {
    return (await this.store.stored())[0]?.usedBy;
  }

  async close(): Promise<void> {
    await this.image.close();
    await this.#disk.close();
    await this.store.close();
  }
}

test("an image that comes for guests of several tenants is each one's own when it is here, by the name each gave it", async () => {
  await withDirectory(async (directory) => {
    const coming = await Coming.begin(directory, { tenant: "acme", identifier: "debian" });
    try {
      coming.image.addTenant("globex", "root");
      coming.image.addTenant("globex", "another");
      coming.image.addTenant("initech", undefined);
      assert.deepEqual(instancesIn(coming.image.record), [
        { tenant: "acme", identifier: "debian" },
        { tenant: "globex", identifier: "root" },
        { tenant: "initech" },
      ]);
      const running = coming.image.run();
      await coming.arrive();
      await coming.settle();
      await running;
      const { digest } = coming.image.record;
      assert.equal((await coming.store.find("debian", "acme")).digest, digest);
      assert.equal((await coming.store.find("root", "globex")).digest, digest);
      assert.equal((await coming.store.find(digest.slice(0, 12), "initech")).identifier, undefined);
    } finally {
      await coming.close();
    }
  });
});

test("what each tenant's chains use of an image that came is noted as that tenant's, and let go by itself", async () => {
  await withDirectory(async (directory) => {
    const coming = await Coming.begin(directory, { tenant: "acme", identifier: "debian" });
    try {
      coming.image.addTenant("globex", "root");
      const early = await coming.image.hold("globex");
      const second = await coming.image.hold("globex");
      const running = coming.image.run();
      await coming.arrive();
      await until("its arrival", () => coming.image.isHere);
      const late = await coming.image.hold("acme");
      assert.ok(late.arriving !== undefined, "guests may still read it on the socket");
      await coming.settle();
      await running;
      assert.equal(early.arriving, undefined, "guests read it where it lies");
      assert.deepEqual(await coming.usedBy(), ["acme", "globex"]);
      late.letGo();
      late.letGo();
      assert.deepEqual(await coming.usedBy(), ["globex"]);
      await assert.rejects(coming.store.remove("root", "globex"), { code: "in-use" });
      await coming.store.remove("debian", "acme");
      early.letGo();
      assert.deepEqual(await coming.usedBy(), ["globex"]);
      second.letGo();
      assert.deepEqual(await coming.usedBy(), []);
    } finally {
      await coming.close();
    }
  });
});

test("one that was found damaged before its guests read it where it lies comes again", async () => {
  await withDirectory(async (directory) => {
    const imagesDirectory = join(directory, "images");
    const raw = await makeRaw(join(directory, "raw"), { seed: 1, sizeBytes: MIB });
    const store = await openStore(imagesDirectory);
    const { digest, sizeBytes } = await store.import(raw, { tenant: "acme", identifier: "debian" });
    const path = join(imagesDirectory, digest, "disk.raw");
    await chmod(path, 0o600);
    await writeFile(path, Buffer.alloc(MIB, 1));
    await assert.rejects(store.verify("debian", { tenant: "acme" }), { code: "damaged" });
    const asked = deferred<string>();
    const host: ArrivingImageHost = {
      images: store,
      pulls: {
        begin: (image) => {
          asked.resolve(image.digest);
          return Promise.reject(new Error("there is nobody"));
        },
      },
      imagesDirectory,
      socketDirectory: directory,
      hostId: "hosta",
      findData: allData,
      clock: realClock,
      log: silentLog,
      origins: () => [],
      localise: () => Promise.resolve(true),
      settled: () => Promise.resolve(),
    };
    const key = "00000000-0000-4000-8000-000000000001";
    const as = { tenant: "acme", identifier: "debian" };
    const record: ArrivingRecord = { version: 1, digest, sizeBytes, ...as, key, origins: [], sinceMs: 0 };
    const image = await ArrivingImage.takeUp(record, host);
    void image.run();
    assert.equal(await asked.promise, digest);
    await image.close();
    await store.close();
  });
});
