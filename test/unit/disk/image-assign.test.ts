import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { makeRaw, MIB, openStore, withDirectory } from "../../support/images.js";

test("a tenant is let have an image that is here, under a name of its own, and others do not see it", () =>
  withDirectory(async (directory) => {
    const store = await openStore(join(directory, "images"));
    const path = await makeRaw(join(directory, "disk"), { seed: 1, sizeBytes: MIB });
    const { digest } = await store.import(path, { tenant: "one", identifier: "debian" });
    const view = await store.assign(digest, { tenant: "two", identifier: "root" });
    assert.deepEqual([view.digest, view.tenant, view.identifier], [digest, "two", "root"]);
    assert.equal((await store.find("root", "two")).digest, digest);
    await assert.rejects(store.find("debian", "two"), { code: "no-such-image" });
    await assert.rejects(store.find(digest, "three"), { code: "no-such-image" });
    const again = await store.assign(digest, { tenant: "two", identifier: "root" });
    assert.equal(again.digest, digest);
    assert.equal((await store.list("two")).length, 1);
    await store.close();
  }));

test("a name that is taken, a name that is none and an image that is not here are refused", () =>
  withDirectory(async (directory) => {
    const store = await openStore(join(directory, "images"));
    const digests: string[] = [];
    for (const seed of [1, 2]) {
      const path = await makeRaw(join(directory, `disk${seed}`), { seed, sizeBytes: MIB });
      digests.push((await store.import(path, { tenant: "one", identifier: `disk${seed}` })).digest);
    }
    const [first = "", second = ""] = digests;
    await store.assign(first, { tenant: "two", identifier: "root" });
    const as = { tenant: "two", identifier: "root" };
    await assert.rejects(store.assign(second, as), { code: "name-taken" });
    await assert.rejects(store.assign(second, { ...as, identifier: "../root" }), { code: "bad-name" });
    await assert.rejects(store.assign("ab".repeat(32), { tenant: "two" }), { code: "no-such-image" });
    await store.close();
  }));
