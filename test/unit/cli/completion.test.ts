import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { FakeSetting } from "./support.js";

async function script(shell: string): Promise<string> {
  const setting = new FakeSetting();
  assert.equal(await setting.run("completion", shell), 0, setting.stderr.text);
  return setting.stdout.text;
}

/** What bash offers for a line whose last word is being typed. */
function offered(bash: string, words: string[]): string[] {
  const test = `
    ramet() { printf 'web\\nshop\\n'; }
    COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}
    _ramet; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr, status } = spawnSync("bash", ["-c", `${bash}\n${test}`], {
    encoding: "utf8",
    timeout: 10_000,
  });
  assert.equal(status, 0, stderr);
  assert.equal(stderr, "");
  return stdout.split("\n").filter((word) => word !== "");
}

test("bash completes commands, options, choices and the names of guests", async () => {
  const bash = await script("bash");
  assert.deepEqual(offered(bash, ["ramet", "mi"]), ["migrate"]);
  assert.deepEqual(offered(bash, ["ramet", "--json", "for"]), ["fork"]);
  assert.deepEqual(offered(bash, ["ramet", "fork", "--ver"]), ["--verify"]);
  assert.deepEqual(offered(bash, ["ramet", "fork", "--sweep", "h"]), ["held"]);
  assert.deepEqual(offered(bash, ["ramet", "show", ""]), ["web", "shop"]);
  assert.deepEqual(offered(bash, ["ramet", "completion", "z"]), ["zsh"]);
  assert.deepEqual(offered(bash, ["ramet", "run", "web", "--kernel", "/b"]), []);
});

test("zsh and fish scripts name every command, and quote what they must", async () => {
  const zsh = await script("zsh");
  const fish = await script("fish");
  for (const command of ["run", "list", "fork", "migrate", "watch", "completion"]) {
    assert.match(zsh, new RegExp(`'${command}:`));
    assert.match(fish, new RegExp(`-a ${command} -d `));
  }
  assert.match(zsh, /^#compdef ramet\n/);
  for (const text of [zsh, fish]) assert.equal((text.match(/'/g)?.length ?? 0) % 2, 0);
});
