import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { RpcServerSession } from "../../../src/control/index.js";
import { LogFollowers } from "../../../src/agent/api/log-followers.js";
import type { Guest } from "../../../src/agent/guests/guest.js";
import type { Paths } from "../../../src/agent/store/paths.js";
import { ManualClock } from "../../support/lane-clock.js";

test("a followed log ends with its guest, whatever state that was removed in", async () => {
  const directory = mkdtempSync(join(tmpdir(), "ramet-follow-"));
  const path = join(directory, "console.log");
  const clock = new ManualClock();
  const logs = new LogFollowers({ paths: { consoleLog: () => path } as unknown as Paths, clock });
  // A guest that was migrated away stays `migrated` while it is removed.
  const guest = { id: "1", name: "web", isLive: true, hasEmulator: true };
  const told: string[] = [];
  const session = {
    onEnd: () => () => {},
    sendEvent: (_event: string, data: { lines: string[] }) => told.push(...data.lines),
  };
  const params = { name: "web", source: "console" as const, lines: 1, follow: true };
  writeFileSync(path, "one\n");
  const read = logs.read(guest as unknown as Guest, params, session as unknown as RpcServerSession);
  assert.deepEqual(await read, ["one"]);
  writeFileSync(path, "two\n", { flag: "a" });
  clock.advance(300);
  assert.deepEqual(told, ["two"]);
  rmSync(path);
  clock.advance(300);
  guest.hasEmulator = false;
  clock.advance(300);
  assert.equal(clock.pending, 0, "nobody looks any more");
  rmSync(directory, { recursive: true });
});
