import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFile,
  chmod,
  mkdir,
  open,
  readdir,
  readFile,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { codeOf } from "../../src/base/index.js";
import { makeRaw, MIB, openStore, qemuImg, toQcow2, withDirectory } from "../support/images.js";

/** Refused with this code and these words; nothing is left of it. */
async function refuses(
  make: (directory: string) => Promise<string>,
  expected: { code: string; words: RegExp; format?: "raw" | "qcow2" },
): Promise<void> {
  await withDirectory(async (directory) => {
    const path = await make(directory);
    const images = join(directory, "images");
    const store = await openStore(images);
    const importing = store.import(path, { tenant: "default", identifier: "bad", format: expected.format });
    await assert.rejects(importing, (error: Error) => {
      assert.equal(codeOf(error), expected.code, error.message);
      assert.match(error.message, expected.words);
      return true;
    });
    await store.close();
    assert.deepEqual(await readdir(images), []);
  });
}

/** A sound qcow2 file of 4 MiB, all of it data, that is then changed. */
async function spoilt(directory: string, spoil: (path: string) => Promise<void>): Promise<string> {
  const raw = await makeRaw(join(directory, "raw"), { seed: 1, sizeBytes: 4 * MIB, pieces: 60 });
  const path = toQcow2(raw, join(directory, "qcow2"));
  await spoil(path);
  return path;
}

async function overwrite(path: string, offset: number, hex: string): Promise<void> {
  const file = await open(path, "r+");
  await file.write(Buffer.from(hex, "hex"), 0, undefined, offset);
  await file.close();
}

test("a directory, a pipe, a device and nothing at all are no images", async () => {
  await refuses(async (directory) => directory, { code: "bad-image", words: /is not a regular file/ });
  const pipe = async (directory: string) => {
    execFileSync("mkfifo", [join(directory, "pipe")]);
    return join(directory, "pipe");
  };
  await refuses(pipe, { code: "bad-image", words: /is not a regular file/ });
  await refuses(async () => "/dev/zero", { code: "bad-image", words: /is not a regular file/ });
  await refuses(async () => "/nowhere/disk", { code: "bad-image", words: /is not there, on the agent/ });
});

test("an empty file, half a sector and text are no disks", async () => {
  const file = (bytes: number | string) => async (directory: string) => {
    await writeFile(join(directory, "disk"), typeof bytes === "string" ? bytes : Buffer.alloc(bytes, 1));
    return join(directory, "disk");
  };
  await refuses(file(0), { code: "bad-image", words: /is empty/ });
  await refuses(file(511), { code: "bad-image", words: /has 511 bytes/ });
  await refuses(file(MIB + 1), { code: "bad-image", words: /whole sectors of 512 bytes/ });
  await refuses(file("QFI\xfb"), { code: "bad-image", words: /has 5 bytes/ });
});

test("a disk larger than any may be is refused before it is read", async () => {
  const large = async (directory: string) => {
    await writeFile(join(directory, "disk"), "");
    await truncate(join(directory, "disk"), 4 * 1024 ** 4 + 512);
    return join(directory, "disk");
  };
  await refuses(large, { code: "bad-image", words: /to 4 TiB/ });
  const declared = (directory: string) =>
    spoilt(directory, (path) => overwrite(path, 24, "7fffffffffffffff"));
  await refuses(declared, { code: "bad-image", words: /to 4 TiB/ });
});

test("a qcow2 file that was cut short is refused, wherever it was cut", async () => {
  for (const part of [0.001, 0.05, 0.3, 0.9]) {
    const cut = (directory: string) =>
      spoilt(directory, async (path) => truncate(path, Math.floor((await stat(path)).size * part)));
    await refuses(cut, { code: "bad-image", words: /^[^\n]*(cut short|no sound qcow2 file)[^\n]*$/ });
  }
});

test("a qcow2 file with a backing file is refused, and that file is never opened", async () => {
  for (const backing of [
    "/etc/shadow",
    'json:{"driver":"raw","file.filename":"/etc/shadow"}',
    "nbd://localhost/x",
  ]) {
    const made = async (directory: string) => {
      const path = join(directory, "overlay");
      qemuImg("create", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", path, "4M");
      return path;
    };
    await refuses(made, { code: "refers-outside", words: /has a backing file .* qemu-img convert/ });
    // Saying that it is a disk's own bytes makes it that: nothing in it is followed.
    await withDirectory(async (directory) => {
      const path = await made(directory);
      await truncate(path, MIB);
      const store = await openStore(join(directory, "images"));
      const { digest } = await store.import(path, { tenant: "default", format: "raw" });
      const held = await store.hold(digest, "default");
      assert.deepEqual(await readFile(held.path), await readFile(path));
      held.letGo();
      await store.close();
    });
  }
});

test("a qcow2 file that keeps its data elsewhere is refused, by its feature and by its name alone", async () => {
  const external = async (directory: string) => {
    qemuImg(
      "create",
      "-f",
      "qcow2",
      "-o",
      `data_file=${join(directory, "data")},data_file_raw=on`,
      join(directory, "q"),
      "4M",
    );
    return join(directory, "q");
  };
  await refuses(external, { code: "refers-outside", words: /keeps its data in another file/ });
  const named = async (directory: string) => {
    const path = await external(directory);
    await overwrite(path, 72, "0000000000000000");
    return path;
  };
  await refuses(named, { code: "refers-outside", words: /keeps its data in another file/ });
});

test("an encrypted qcow2 file is refused, by either method and by the header of one alone", async () => {
  for (const method of ["00000001", "00000002"]) {
    const encrypted = (directory: string) => spoilt(directory, (path) => overwrite(path, 32, method));
    await refuses(encrypted, { code: "encrypted", words: /is encrypted/ });
  }
  const extension = (directory: string) =>
    spoilt(directory, async (path) => {
      await overwrite(path, 100, "00000068");
      await overwrite(path, 104, "0537be7700000010");
    });
  await refuses(extension, { code: "encrypted", words: /is encrypted/ });
});

test("headers that break a rule are refused before any program opens the file", async () => {
  const header = (offset: number, hex: string) => (directory: string) =>
    spoilt(directory, (path) => overwrite(path, offset, hex));
  const refused: [number, string, RegExp][] = [
    [4, "00000004", /version 4 is not known/],
    [20, "00000008", /clusters of 2\^8 bytes/],
    [20, "ffffffff", /clusters of 2\^4294967295 bytes/],
    [72, "0000000000000002", /is marked as corrupt/],
    [72, "0000000000000080", /features of qcow2 that are not known \(0x80\)/],
    [100, "00000003", /a header of 3 bytes/],
    [100, "fffffff8", /its header does not end/],
    [24, "0000000000000001", /whole sectors/],
    [24, "0000000000000000", /whole sectors/],
  ];
  for (const [offset, hex, words] of refused)
    await refuses(header(offset, hex), { code: "bad-image", words });
  // An extension that is longer than the header's cluster.
  await refuses(
    async (directory) => {
      const path = await header(100, "00000068")(directory);
      await overwrite(path, 104, "12345678ffffffff");
      return path;
    },
    { code: "bad-image", words: /its header does not end/ },
  );
});

test("a disk that begins as qcow2 files do is refused with what to say of it, and is a disk then", async () => {
  const likeQcow2 = async (directory: string) => {
    const path = join(directory, "disk");
    await writeFile(path, Buffer.concat([Buffer.from("QFI\xfb", "latin1"), Buffer.alloc(MIB - 4, 0x55)]));
    return path;
  };
  await refuses(likeQcow2, { code: "bad-image", words: /say --format raw/ });
  await withDirectory(async (directory) => {
    const store = await openStore(join(directory, "images"));
    const options = { tenant: "default", format: "raw" } as const;
    const { sizeBytes } = await store.import(await likeQcow2(directory), options);
    assert.equal(sizeBytes, MIB);
    await store.close();
  });
});

test("tables that lead nowhere are refused with qemu-img's words", async () => {
  for (const [offset, hex] of [
    [36, "7fffffff"],
    [40, "00ffffffffff0000"],
    [48, "00ffffffffff0000"],
  ] as const) {
    const made = (directory: string) => spoilt(directory, (path) => overwrite(path, offset, hex));
    await refuses(made, { code: "bad-image", words: /no sound qcow2 file/ });
  }
});

test("other formats and compressed files are named, with what to do", async () => {
  const formats: [string, string, RegExp][] = [
    ["vmdk", "4b444d56", /is VMDK.*qemu-img convert/],
    ["xz", "fd377a585a0000", /is xz.*xz --decompress/],
    ["gzip", "1f8b0808", /is gzip/],
  ];
  for (const [name, hex, words] of formats) {
    const made = async (directory: string) => {
      await writeFile(join(directory, name), Buffer.concat([Buffer.from(hex, "hex"), Buffer.alloc(2048)]));
      await truncate(join(directory, name), 2048);
      return join(directory, name);
    };
    await refuses(made, { code: "bad-image", words });
  }
});

test("a file that is written while it is imported is refused", async () => {
  await withDirectory(async (directory) => {
    const path = await makeRaw(join(directory, "raw"), { seed: 2, sizeBytes: 4 * MIB });
    const store = await openStore(join(directory, "images"));
    let changed = false;
    const importing = store.import(path, {
      tenant: "default",
      onProgress: () => {
        if (!changed) void appendFile(path, "more");
        changed = true;
      },
    });
    await assert.rejects(importing, (error: Error) => /changed while it was imported/.test(error.message));
    await store.close();
  });
});

test("a qcow2 file only the agent may read is converted by a user who may not, and nothing of it is that user's", async () => {
  await withDirectory(async (directory) => {
    const isRoot = process.geteuid?.() === 0;
    const raw = await makeRaw(join(directory, "raw"), { seed: 3, sizeBytes: 4 * MIB });
    const path = toQcow2(raw, join(directory, "qcow2"));
    await chmod(path, 0o600);
    const before = process.umask(0o077);
    try {
      const store = await openStore(join(directory, "images"), isRoot ? { uid: 65_534 } : {});
      const { digest } = await store.import(path, { tenant: "default" });
      const held = await store.hold(digest, "default");
      assert.deepEqual(await readFile(held.path), await readFile(raw));
      const found = await stat(held.path);
      assert.deepEqual([found.uid, found.mode & 0o777], [process.geteuid?.(), 0o444]);
      assert.equal((await stat(join(directory, "images"))).mode & 0o777, 0o711);
      held.letGo();
      await store.close();
    } finally {
      process.umask(before);
    }
  });
});

test("what a stranger put into a shared directory is neither followed nor taken for an image", async () => {
  await withDirectory(async (directory) => {
    const images = join(directory, "images");
    const digest = "ab".repeat(32);
    await mkdir(join(images, digest), { recursive: true });
    await symlink("/etc/shadow", join(images, digest, "image.json"));
    const other = "cd".repeat(32);
    await mkdir(join(images, other, "tenants", "default"), { recursive: true });
    const record = { version: 1, digest: other, sizeBytes: 512, createdAtMs: 0 };
    await writeFile(join(images, other, "image.json"), JSON.stringify(record));
    execFileSync("mkfifo", [join(images, other, "tenants", "default", "base.json")]);
    const store = await openStore(images);
    assert.deepEqual(await store.list("default"), []);
    assert.equal(await store.has(digest), false);
    await assert.rejects(store.hold(other, "default"), (error: unknown) => codeOf(error) === "no-such-image");
    await store.close();
  });
});
