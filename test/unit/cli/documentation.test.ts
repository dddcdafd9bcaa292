import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { EXIT } from "../../../src/cli/exit-codes.js";
import { FakeSetting } from "./support.js";

const text = readFileSync(new URL("../../../docs/cli.md", import.meta.url), "utf8");

async function help(...argv: string[]): Promise<string> {
  const setting = new FakeSetting();
  assert.equal(await setting.run(...argv, "--help"), 0);
  return setting.stdout.text;
}

test("the manual names every command, every option and every exit code", async () => {
  const commands = [...(await help()).matchAll(/^ {2}([a-z]+)(?:\|[a-z]+)? .*$/gm)]
    .map((match) => match[1] as string)
    .filter((name) => name !== "help");
  assert.ok(commands.length >= 20, commands.join(" "));
  for (const command of commands) {
    assert.match(text, new RegExp(`ramet ${command}\\b`), `ramet ${command}`);
    for (const [option] of (await help(command)).matchAll(/^ {2}.*?(?=--[a-z-]+)--[a-z-]+/gm)) {
      for (const flag of option.match(/--?[a-z][a-z-]*/g) ?? []) {
        if (flag !== "-h") assert.ok(text.includes(`\`${flag}`), `${flag} of ${command}`);
      }
    }
  }
  for (const code of Object.values(EXIT))
    assert.match(text, new RegExp(`^\\| ${code} \\|`, "m"), `exit code ${code}`);
});
