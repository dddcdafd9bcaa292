import assert from "node:assert/strict";
import { test } from "node:test";
import { GUEST } from "../control/support.js";
import { FakeSetting } from "./support.js";

test("run takes a guest's tenant apart from its name, or with it", async () => {
  const names: string[] = [];
  const setting = new FakeSetting({
    "guest.run": ({ name }) => {
      names.push(name);
      return Promise.resolve({ guest: { ...GUEST, name } });
    },
  });
  for (const args of [
    ["web", "--tenant", "acme"],
    ["web@acme"],
    ["web@acme", "-t", "acme"],
    ["web", "-t", "default"],
  ])
    assert.equal(await setting.run("run", "-k", "/vmlinuz", ...args), 0, setting.stderr.text);
  assert.deepEqual(names, ["web@acme", "web@acme", "web@acme", "web"]);
  assert.match(setting.stdout.text, /^web@acme runs$/m);
  for (const args of [["web@rival", "-t", "acme"], ["web", "-t", "Acme"], ["web@default"]])
    assert.equal(await setting.run("run", "-k", "/vmlinuz", ...args), 2, args.join(" "));
  assert.equal(names.length, 4);
});

test("run without a kernel needs a disk, and has nothing to give a kernel", async () => {
  const asked: unknown[] = [];
  const setting = new FakeSetting({
    "guest.run": (params) => {
      asked.push(params.kernel, params.disks.length);
      return Promise.resolve({ guest: GUEST });
    },
  });
  assert.equal(await setting.run("run", "web", "-d", "image:debian-12"), 0, setting.stderr.text);
  assert.deepEqual(asked, [undefined, 1]);
  for (const args of [[], ["-d", "size=1G", "-a", "quiet"], ["-d", "size=1G", "-i", "/initrd"]])
    assert.equal(await setting.run("run", "web", ...args), 2);
  assert.match(setting.stderr.text, /a --disk to boot from[^]*--append needs --kernel[^]*--initrd needs/);
});
