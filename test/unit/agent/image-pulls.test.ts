import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdir, open, utimes } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { clearLeftPulls } from "../../../src/agent/blocks/left-pulls.js";
import { BlockGrants } from "../../../src/agent/blocks/block-grants.js";
import {
  hostOrigin,
  type ImageOrigin,
  type ImageSourceHost,
} from "../../../src/agent/blocks/image-origins.js";
import { ImagePulls } from "../../../src/agent/blocks/image-pulls.js";
import { realClock, silentLog, type Clock, type Holder } from "../../../src/base/index.js";
import { DiskError, FileSource, type ImageStore, type ImageView } from "../../../src/disk/index.js";
import { LaneError } from "../../../src/lane/index.js";
import { findDataByReading as findData } from "../../support/find-data.js";
import { FramePair } from "../../support/frame-pair.js";
import { makeRaw, MIB, openStore, withDirectory } from "../../support/images.js";
import { until } from "../../support/lane-pair.js";

const reader: Holder = { kind: "certificate", name: "CN=reader" };
const asReader = { ...reader, roles: ["peer"] as const };
const TENANT = "default";

/** A host that has images, and gives them. */
class Library implements ImageSourceHost {
  readonly grants = new BlockGrants({ clock: realClock, log: silentLog });
  readonly origin = hostOrigin(this, { name: "library", clock: realClock });
  readonly store: ImageStore;
  readonly pairs: FramePair[] = [];
  opened = 0;
  refusal: Error | undefined;
  /** What is read instead of the image's bytes. */
  other: { disk: string; chunks: string } | undefined;

  constructor(store: ImageStore) {
    this.store = store;
  }

  async openImage(digest: string): Promise<{ grant: number; token: string; holder: Holder }> {
    if (this.refusal !== undefined) throw this.refusal;
    const held = await this.store.hold(digest, TENANT);
    const disk = await FileSource.open(this.other?.disk ?? held.path, findData);
    const chunks = await FileSource.open(this.other?.chunks ?? join(held.path, "..", "chunks"), findData);
    this.opened += 1;
    const onEnd = (): void => {
      held.letGo();
      void disk.close();
      void chunks.close();
    };
    return { ...this.grants.open({ holder: reader, disks: [disk, chunks], onEnd }), holder: reader };
  }

  dial(
    ...[purpose, epoch, { grant, token }]: Parameters<ImageSourceHost["dial"]>
  ): Promise<FramePair["left"]> {
    const pair = new FramePair();
    try {
      this.grants.routes.find(asReader, grant, token).acceptLane(purpose, epoch, pair.right, { lz4: true });
    } catch (error) {
      return Promise.reject(error);
    }
    this.pairs.push(pair);
    return Promise.resolve(pair.left);
  }

  closeImage(grant: number): void {
    this.grants.end(grant, reader);
  }
}

interface Field {
  directory: string;
  library: Library;
  store: ImageStore;
  image: ImageView;
  raw: Buffer;
  newPulls(): ImagePulls;
}

/** A library with one image, and a host without any. */
async function withField(body: (field: Field) => Promise<void>): Promise<void> {
  await withDirectory(async (root) => {
    await mkdir(join(root, "library"));
    const path = await makeRaw(join(root, "disk"), { seed: 4, sizeBytes: 9 * MIB + 512, pieces: 20 });
    const library = new Library(await openStore(join(root, "library"), { host: "library" }));
    const image = await library.store.import(path, { tenant: TENANT, identifier: "debian" });
    const directory = join(root, "images");
    const store = await openStore(directory);
    const newPulls = (): ImagePulls =>
      new ImagePulls({ images: store, directory, hostId: "h", findData, clock: realClock, log: silentLog });
    await body({ directory, library, store, image, raw: readFileSync(path), newPulls });
    library.grants.close();
    await Promise.all([store.close(), library.store.close()]);
  });
}

const wanted = ({ digest, sizeBytes }: ImageView) => ({ digest, sizeBytes, tenant: TENANT });

test("an image comes once, whoever asks for it, and is one of this host's then", () =>
  withField(async ({ directory, library, store, image, raw, newPulls }) => {
    const pulls = newPulls();
    const [pull, same] = await Promise.all([
      pulls.begin(wanted(image), [library.origin]),
      pulls.begin(wanted(image), [library.origin]),
    ]);
    assert.equal(pull, same);
    const stopReading = pull.read();
    const held = await pull.image;
    assert.equal(library.opened, 1);
    assert.ok(readFileSync(held.path).equals(raw));
    assert.ok(await store.has(image.digest));
    assert.deepEqual(readdirSync(directory), [image.digest]);
    assert.deepEqual(readdirSync(join(directory, image.digest)).sort(), [
      "chunks",
      "disk.raw",
      "hosts",
      "image.json",
      "tenants",
    ]);
    const { phase, hereBytes, wireBytes } = pull.progress;
    assert.deepEqual([phase, hereBytes], ["complete", image.sizeBytes]);
    assert.ok(wireBytes > 0 && wireBytes < image.sizeBytes, `${wireBytes} bytes came over the wire`);
    assert.ok((await pull.disk.read(0, MIB)).equals(raw.subarray(0, MIB)), "who reads it goes on reading it");
    stopReading();
    await until("the grant is given back", () => library.grants.sentBytes.size === 0);
    held.letGo();
    await pulls.close();
  }));

test("it is read while it comes, and what is lost on the way is asked again", () =>
  withField(async ({ library, image, raw, newPulls }) => {
    const pulls = newPulls();
    const pull = await pulls.begin(wanted(image), [library.origin]);
    for (let at = 0; at < image.sizeBytes; at += MIB) {
      const length = Math.min(3000, image.sizeBytes - at);
      assert.ok((await pull.disk.read(at, length)).equals(raw.subarray(at, at + length)));
      library.pairs.at(-1)?.cut();
    }
    (await pull.image).letGo();
    await pull.close();
  }));

test("when the source has forgotten its grant, as after its restart, another one is asked for", () =>
  withField(async ({ library, image, raw, newPulls }) => {
    const pulls = newPulls();
    const pull = await pulls.begin(wanted(image), [library.origin]);
    library.refusal = new LaneError("unreachable", "nobody there");
    for (const grant of library.grants.sentBytes.keys()) library.grants.end(grant, reader);
    const read = pull.disk.read(5 * MIB, 100);
    await until("it is waiting or here", () => pull.progress.phase !== "pulling");
    library.refusal = undefined;
    assert.ok((await read).equals(raw.subarray(5 * MIB, 5 * MIB + 100)));
    const held = await pull.image;
    assert.ok(readFileSync(held.path).equals(raw));
    held.letGo();
    await pull.close();
  }));

test("an agent that ends goes on where it was when it is started again", () =>
  withField(async ({ directory, library, image, raw, newPulls }) => {
    const first = newPulls();
    const pull = await first.begin(wanted(image), [library.origin]);
    await pull.disk.read(0, 1);
    await first.close();
    await assert.rejects(pull.image, { code: "cancelled" });
    assert.ok(existsSync(join(directory, `.filling-h-${image.digest}`)));
    const second = newPulls();
    const again = await second.begin(wanted(image), [library.origin]);
    assert.ok(again.progress.hereBytes > 0);
    const held = await again.image;
    assert.ok(readFileSync(held.path).equals(raw));
    held.letGo();
    await again.close();
  }));

/** Writes `to`, which differs from an image's file in a byte at 4 MiB. */
function wrongCopyOf(path: string, to: string): string {
  const wrong = readFileSync(path);
  wrong[4 * MIB] = (wrong[4 * MIB] as number) ^ 1;
  writeFileSync(to, wrong);
  return to;
}

test("what is not what its digest says never becomes an image, and nothing of it stays", () =>
  withField(async ({ directory, library, store, image, newPulls }) => {
    const held = await library.store.hold(image.digest, TENANT);
    const path = wrongCopyOf(held.path, join(directory, "..", "wrong"));
    const chunks = join(held.path, "..", "chunks");
    library.other = { disk: path, chunks };
    const pull = await newPulls().begin(wanted(image), [library.origin]);
    await assert.rejects(pull.image, { code: "damaged", message: /4194304 to 5242879/ });
    await assert.rejects(pull.disk.read(0, 1), { code: "damaged" });
    assert.equal(await store.has(image.digest), false);
    assert.deepEqual(readdirSync(directory), []);
    await pull.close();
    held.letGo();
  }));

test("a list of chunks that does not come to the digest is refused before anything is brought", () =>
  withField(async ({ directory, library, image, newPulls }) => {
    const held = await library.store.hold(image.digest, TENANT);
    const path = join(directory, "..", "list");
    const list = readFileSync(join(held.path, "..", "chunks"));
    list[5] = (list[5] as number) ^ 1;
    const file = await open(path, "w");
    await file.writeFile(list);
    await file.close();
    library.other = { disk: held.path, chunks: path };
    await assert.rejects(newPulls().begin(wanted(image), [library.origin]), { code: "damaged" });
    assert.deepEqual(readdirSync(directory), []);
    await until("the grant is given back", () => library.grants.sentBytes.size === 0);
    held.letGo();
  }));

test("what the source refuses with is what begins is refused with", () =>
  withField(async ({ library, image, newPulls }) => {
    library.refusal = new DiskError("no-such-image", "there is none");
    const pulls = newPulls();
    await assert.rejects(pulls.begin(wanted(image), [library.origin]), { code: "no-such-image" });
    library.refusal = undefined;
    const pull = await pulls.begin(wanted(image), [library.origin]);
    (await pull.image).letGo();
    await pull.close();
  }));

/** A source that has the list of an image's chunks, and gives none of them. */
function withoutContent({ library, image }: Field): ImageOrigin {
  const lost = () => Promise.reject(new DiskError("source-lost", "nobody there"));
  const nothing = { sizeBytes: image.sizeBytes, read: lost, extents: lost };
  return {
    name: "without content",
    async open() {
      const held = await library.store.hold(image.digest, TENANT);
      const chunks = await FileSource.open(join(held.path, "..", "chunks"), findData);
      const close = (): void => {
        held.letGo();
        void chunks.close();
      };
      const disk = { urgent: nothing, bulk: nothing };
      return { disk, chunks, receivedBytes: 0, problem: undefined, onOver() {}, close };
    },
  };
}

test("what came of an image that nobody brings any more is cleared, and never what is on its way", () =>
  withField(async (field) => {
    const { directory, library, image, raw, newPulls } = field;
    const options = {
      directories: [directory, join(directory, "not-mounted")],
      hostId: "h",
      unusedForMs: 0,
      dryRun: false,
      isArriving: () => false,
      clock: realClock,
      log: silentLog,
    };
    const mine = join(directory, `.filling-h-${image.digest}`);
    const anothers = join(directory, `.filling-b-${image.digest}`);
    await mkdir(anothers);
    const first = newPulls();
    await first.begin(wanted(image), [withoutContent(field)]);
    assert.deepEqual(await clearLeftPulls(first, options), [], "it is on its way");
    await first.close();
    // As after a crash: this agent knows nothing of it.
    const second = newPulls();
    const isArriving = (digest: string) => digest === image.digest;
    assert.deepEqual(await clearLeftPulls(second, { ...options, isArriving }), [], "a guest waits for it");
    const recent = { ...options, unusedForMs: 3_600_000 };
    assert.deepEqual(await clearLeftPulls(second, recent), [], "it has not been left for so long");
    const [would] = await clearLeftPulls(second, { ...options, dryRun: true });
    assert.deepEqual([would?.digest, would?.directory], [image.digest, directory]);
    assert.ok(existsSync(join(mine, "filling.json")), "nothing was done");
    for (const name of ["", ...readdirSync(mine)]) await utimes(join(mine, name), 1, 1);
    const [left] = await clearLeftPulls(second, recent);
    assert.deepEqual([left?.digest, left?.lastChangedMs], [image.digest, 1000]);
    assert.deepEqual(readdirSync(directory), [`.filling-b-${image.digest}`], "another host knows of its own");
    // What an agent left that ended while it cleared.
    await mkdir(mine);
    assert.equal((await clearLeftPulls(second, options)).length, 1);
    await mkdir(mine);
    const [cleared, pull] = await Promise.all([
      clearLeftPulls(second, options),
      second.begin(wanted(image), [library.origin]),
    ]);
    assert.ok(cleared.length <= 1, "either comes first");
    const held = await pull.image;
    assert.ok(readFileSync(held.path).equals(raw));
    held.letGo();
    await pull.close();
    assert.deepEqual(await clearLeftPulls(second, options), []);
  }));

test("whoever brings an image waits while what had come of it is cleared", () =>
  withField(async ({ library, image, raw, newPulls }) => {
    const pulls = newPulls();
    const acts: string[] = [];
    const clearing = pulls.unlessPulled(image.digest, async () => {
      await new Promise((resolve) => setImmediate(resolve));
      acts.push("cleared");
      return true;
    });
    const pull = await pulls.begin(wanted(image), [library.origin]);
    acts.push("begun");
    assert.deepEqual([await clearing, acts], [true, ["cleared", "begun"]]);
    assert.equal(await pulls.unlessPulled(image.digest, () => Promise.resolve(true)), false);
    const held = await pull.image;
    assert.ok(readFileSync(held.path).equals(raw));
    held.letGo();
    await pull.close();
  }));

test("a source that gives something wrong to who runs on it is said to, and what it gives right is taken", () =>
  withField(async ({ directory, library, store, image, raw }) => {
    const held = await library.store.hold(image.digest, TENANT);
    const path = wrongCopyOf(held.path, join(directory, "..", "wrong"));
    library.other = { disk: path, chunks: join(held.path, "..", "chunks") };
    // A thousand times as fast: it is asked again after 10 s, 20 s and so on.
    const clock: Clock = {
      ...realClock,
      nowUs: () => realClock.nowUs() * 1000,
      after: (delayMs, run) => realClock.after(delayMs / 1000, run),
    };
    const options = { images: store, directory, hostId: "h", findData, clock, log: silentLog };
    const pull = await new ImagePulls(options).begin(wanted(image), [library.origin]);
    const stopReading = pull.read();
    const read = pull.disk.read(4 * MIB, 100);
    await until("it was asked again, and again", () => library.opened >= 4);
    await until("it says that it waits", () => /\d times by now: .*ramet image verify/.test(said()));
    assert.equal(pull.progress.phase, "waiting");
    library.other = undefined;
    assert.ok((await read).equals(raw.subarray(4 * MIB, 4 * MIB + 100)), "nothing of it was given");
    (await pull.image).letGo();
    stopReading();
    held.letGo();
    await pull.close();

    function said(): string {
      return pull.progress.message ?? "";
    }
  }));
