import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Hosts, type Host } from "../support/hosts.js";
import { ask, runSample } from "../support/sample-guest.js";

const PORT = 8160;

/** The installed emulator, but for one machine type that it does not know. */
function emulatorWithout(machine: string): string {
  const directory = mkdtempSync(join(tmpdir(), "re-"));
  const real = execFileSync("sh", ["-c", "command -v qemu-system-x86_64"], { encoding: "utf8" }).trim();
  const script = `#!/bin/sh\ncase "$*" in *help*) exec ${real} "$@" | grep -v ${machine};; *) exec ${real} "$@";; esac\n`;
  writeFileSync(join(directory, "qemu-system-x86_64"), script, { mode: 0o755 });
  return directory;
}

describe("a host whose emulator is too old", () => {
  const machine = "pc-q35-7.2";
  let emulators: string;
  let hosts: Hosts;
  let a: Host;
  before(async () => {
    emulators = emulatorWithout(machine);
    const environment = { PATH: `${emulators}:${process.env["PATH"] ?? ""}` };
    hosts = await Hosts.start(2, { port: 7176, each: (name) => (name === "b" ? { environment } : {}) });
    a = hosts.at(0);
  });
  after(async () => {
    await hosts.stop();
    rmSync(emulators, { recursive: true, force: true });
  });

  test("gets no child of a newer machine, and the parent runs on", async () => {
    await runSample(a, { name: "modern", machine, hostPort: PORT });
    for (const attempt of [
      () => a.call("guest.fork", { name: "modern", to: ["b"] }),
      () => a.call("guest.migrate", { name: "modern", to: "b" }),
    ]) {
      await assert.rejects(attempt(), { message: /no machine type pc-q35-7\.2.*install a newer emulator/ });
    }
    const { counter } = await ask(a, PORT);
    assert.equal((await ask(a, PORT)).counter, counter + 1);
    assert.equal((await a.guests()).get("modern")?.state, "running");
    assert.equal((await hosts.at(1).guests()).size, 0);
  });
});
