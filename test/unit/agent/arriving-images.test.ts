import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { ImagePulls } from "../../../src/agent/blocks/image-pulls.js";
import { ArrivingImages } from "../../../src/agent/images/arriving-images.js";
import { realClock, silentLog } from "../../../src/base/index.js";
import { ImageLibraries } from "../../../src/disk/index.js";
import { allData, makeRaw, MIB, openStore, withDirectory } from "../../support/images.js";

test("an image of a library that another tenant has here is a tenant's without a name where it calls another one so", async () => {
  await withDirectory(async (directory) => {
    const [wanted, other] = [1, 2].map((seed) =>
      makeRaw(join(directory, `raw-${seed}`), { seed, sizeBytes: MIB }),
    );
    const library = await openStore(join(directory, "library"));
    const { digest } = await library.import((await wanted) ?? "", { tenant: "acme", identifier: "base" });
    await library.close();
    const imagesDirectory = join(directory, "images");
    const images = await openStore(imagesDirectory);
    await images.import((await wanted) ?? "", { tenant: "globex", identifier: "theirs" });
    await images.import((await other) ?? "", { tenant: "acme", identifier: "base" });
    const common = { hostId: "hosta", clock: realClock, log: silentLog };
    const socketDirectory = join(directory, "run");
    await mkdir(socketDirectory);
    const arriving = await ArrivingImages.open({
      ...common,
      images,
      pulls: {} as ImagePulls,
      libraries: new ImageLibraries({ ...common, directories: [join(directory, "library")] }),
      libraryDirectories: [join(directory, "library")],
      sources: [],
      imagesDirectories: [imagesDirectory],
      socketDirectory,
      recordDirectory: join(directory, "arriving"),
      findData: allData,
    });
    assert.equal(await arriving.find(digest.slice(0, 12), "acme"), digest);
    const own = await images.list("acme");
    assert.deepEqual(
      own.map((image) => [image.identifier, image.digest === digest]),
      [
        ["base", false],
        [undefined, true],
      ],
    );
    await arriving.close();
    await images.close();
  });
});
