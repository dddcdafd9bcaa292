import assert from "node:assert/strict";
import { chmod, open } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { codeOf, realClock, silentLog } from "../../../src/base/index.js";
import { DiskStore, type ImageStore } from "../../../src/disk/index.js";
import { makeRaw, MIB, openStore, withDirectory } from "../../support/images.js";

const WRITER = "11111111-2222-4333-8444-555555555555";
const ALL = { unusedForMs: 0, keepOwned: false, dryRun: false };

const isCode = (code: string) => (error: unknown) => codeOf(error) === code;

/** Changes a byte of an image's file, and has that found. */
async function damage(images: ImageStore, digest: string): Promise<void> {
  const { path, letGo } = await images.hold(digest);
  letGo();
  await chmod(path, 0o600);
  const file = await open(path, "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, 77);
  await file.write(Buffer.from([(byte[0] as number) ^ 1]), 0, 1, 77);
  await file.close();
  await assert.rejects(images.verify("base", { tenant: "default" }), isCode("damaged"));
}

test("a disk that stands on a base disk found damaged is there in the next agent, and keeps that from being pruned", async () => {
  await withDirectory(async (directory) => {
    const openBoth = async () => {
      const images = await openStore(join(directory, "images"));
      const disks = join(directory, "disks");
      return {
        images,
        store: await DiskStore.open({ directory: disks, images, clock: realClock, log: silentLog }),
      };
    };
    const raw = await makeRaw(join(directory, "raw"), { seed: 5, sizeBytes: 2 * MIB });
    const before = await openBoth();
    const { digest } = await before.images.import(raw, { tenant: "default", identifier: "base" });
    const over = { parent: { image: digest }, writer: WRITER };
    const disk = await before.store.create(over);
    await damage(before.images, digest);
    await assert.rejects(before.store.create(over), isCode("damaged"), "nothing new is put over it");
    await before.images.close();

    const { images, store } = await openBoth();
    assert.equal(store.hasUnreadable, false);
    assert.deepEqual(
      store.chainOf(disk.id).map(({ id }) => id),
      [disk.id, digest],
    );
    await images.settle();
    assert.deepEqual(await images.prune(ALL), []);
    // What shortens a chain notes that the disk stands on the base disk, on which it has stood all the time.
    await store.restand(disk.id, { image: digest });
    await assert.rejects(store.create(over), isCode("damaged"));
    await images.close();
    assert.deepEqual(await images.prune(ALL), [], "the refused one has not let go of it for the other");
    await store.remove(disk.id);
    await images.close();
    assert.equal((await images.prune(ALL)).length, 1);
  });
});
