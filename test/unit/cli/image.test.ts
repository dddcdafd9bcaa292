import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeSetting } from "./support.js";

const IMAGE = {
  identifier: "debian-12",
  digest: "ab".repeat(32),
  sizeBytes: 2 * 1024 ** 3,
  tenant: "default",
  sinceMs: 0,
  isUsed: true,
};
const STORED = {
  digest: IMAGE.digest,
  sizeBytes: IMAGE.sizeBytes,
  allocatedBytes: 1024 ** 3,
  directory: "/images",
  owners: [{ tenant: "acme", identifier: "golden" }, { tenant: "default" }],
  usedBy: ["acme"],
  otherHosts: ["hostb"],
  lastUsedMs: 0,
};

const LEFT = { digest: "ab".repeat(32), directory: "/images", allocatedBytes: 4096, lastChangedMs: 0 };

test("image list, show, remove and prune print what they are told", async () => {
  const asked: object[] = [];
  const told =
    <T>(answer: T) =>
    (params: object) => {
      asked.push(params);
      return Promise.resolve(answer);
    };
  const setting = new FakeSetting({
    "image.list": told({ images: [IMAGE, { ...IMAGE, isUsed: false, problem: "bytes 0 to 1 are wrong" }] }),
    "image.show": told({ image: { ...IMAGE, identifier: "\u001b[2J" } }),
    "image.remove": told({ image: IMAGE }),
    "image.stored": told({ images: [STORED] }),
    "image.prune": told({ images: [STORED], left: [LEFT] }),
  });
  const commands: [string[], RegExp, object][] = [
    [["image", "list"], /debian-12 {2}abababababab {2}2 GiB .* default {2}used\n.* damaged\n/, {}],
    [["image", "list", "-q", "--tenant", "acme"], /^debian-12\ndebian-12\n$/, { tenant: "acme" }],
    [["image", "list", "--all"], /2 GiB {2}1 GiB .* acme\/golden, default\/- {2}acme {5}hostb +good/, {}],
    [["image", "show", "debian-12"], /^name: +[^\u001b]*\n/, { reference: "debian-12" }],
    [["image", "rm", "debian-12"], /is removed; its bytes stay/, { reference: "debian-12" }],
    [
      ["image", "prune", "--unused-for", "30d", "--keep-owned"],
      /1 image was deleted, 1 GiB\nabab\S+ {2}not all of it, since \S.*\nwhat had come of 1 image that nobody brings any more was deleted, 4 KiB\n$/,
      { unusedForMs: 30 * 86_400_000, keepOwned: true, dryRun: false },
    ],
  ];
  for (const [argv, text, params] of commands) {
    setting.stdout.text = "";
    assert.equal(await setting.run(...argv), 0, argv.join(" "));
    assert.match(setting.stdout.text, text);
    assert.deepEqual(asked.pop(), params);
    setting.stdout.text = "";
    assert.equal(await setting.run(...argv, "--json"), 0);
    JSON.parse(setting.stdout.text);
    asked.pop();
  }
  for (const argv of [["prune"], ["prune", "--unused-for", "30"], ["import", "x", "--format", "vdi"]])
    assert.equal(await setting.run("image", ...argv), 2, argv.join(" "));
});

test("image import shows how far it is on a terminal, and is as long as it takes", async () => {
  const setting = new FakeSetting({
    "image.import": ({ work = 0 }, { session }) => {
      const data = { work, phase: "convert" as const, doneBytes: 5 * 1024 ** 2, sizeBytes: 10 * 1024 ** 2 };
      session.sendEvent("image", data);
      session.sendEvent("image", { ...data, work: work + 1, phase: "copy" });
      return Promise.resolve({ image: IMAGE });
    },
  });
  setting.stdout.isTerminal = true;
  assert.equal(await setting.run("image", "import", "disk.qcow2", "--name", "debian-12"), 0);
  assert.match(setting.stdout.text, /importing disk.qcow2: converting █{15}·{15} 50 % of 10 MiB/);
  assert.doesNotMatch(setting.stdout.text, /reading/);
  assert.match(setting.stdout.text, /image debian-12 is here\nname: +debian-12\n/);
});
