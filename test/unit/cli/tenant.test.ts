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
