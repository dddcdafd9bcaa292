import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { realClock, silentLog, type Clock } from "../../../src/base/index.js";
import { parseGuestConfig, probeEmulator, startEmulator } from "../../../src/guest/index.js";

/** Time that passes a hundred times as fast, for deadlines. */
const FAST: Clock = { ...realClock, nowUs: () => realClock.nowUs() * 100 };

const ANSWERS = `case "$*" in
  *--version) echo "QEMU emulator version 10.0.2"; exit;;
  *help) echo "pc-q35-7.2 a machine"; exit;;
esac`;

describe("an emulator that does not start", () => {
  let directory = "";
  before(() => (directory = mkdtempSync(join(tmpdir(), "ramet-start-"))));
  after(() => rmSync(directory, { recursive: true, force: true }));

  /** A program that says it is an emulator. */
  function program(name: string, script: string): string {
    const path = join(directory, name);
    writeFileSync(path, `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
    return path;
  }

  const start = (binary: string) =>
    startEmulator({
      config: parseGuestConfig({
        id: randomUUID(),
        name: "web",
        architecture: "x86_64",
        machine: "pc-q35-7.2",
        memoryBytes: 64 * 1024 * 1024,
        cpus: 1,
        kernel: binary,
        append: "",
        network: { mode: "none" },
        vmgenid: randomUUID(),
      }),
      directory,
      ramPath: join(directory, "ram"),
      binary,
      incoming: false,
      clock: FAST,
      log: silentLog,
    });

  test("is quoted, and nobody who wrote to the same log before it", async () => {
    const says = (words: string) => program(`says-${words}`, `${ANSWERS}\necho "${words}" >&2; exit 7`);
    await assert.rejects(start(says("first")), { message: /ended with code 7; it says: first$/ });
    await assert.rejects(start(says("second")), { message: /ended with code 7; it says: second$/ });
    await assert.rejects(start(program("mute", `${ANSWERS}\nexit 3`)), { message: /ended with code 3$/ });
  });

  test("is not said to have ended by itself when it was ended", async () => {
    const hangs = program("hangs", `${ANSWERS}\nexec sleep 60`);
    await assert.rejects(start(hangs), { code: "start-failed", message: /it takes no command after 15 s$/ });
  });

  test("and does not say what it is, is said to do so for its reason", async () => {
    const asked = (path: string) => probeEmulator("x86_64", { binary: path });
    const told = (why: RegExp) => ({ code: "start-failed", message: why });
    const exits = program("exits", "echo 'no such library' >&2; exit 127");
    await assert.rejects(asked(exits), told(/machine types: it ended with code 127: no such library$/));
    const plain = program("plain", "exit 0");
    chmodSync(plain, 0o644);
    await assert.rejects(asked(plain), told(/machine types: it may not be executed$/));
    writeFileSync(join(directory, "other"), "not a program", { mode: 0o755 });
    await assert.rejects(asked(join(directory, "other")), told(/it (cannot be executed|ended with)/));
    await assert.rejects(asked(program("silent", "exit 0")), told(/is not QEMU$/));
  });
});
