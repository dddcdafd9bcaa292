import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { getPriority } from "node:os";
import { test } from "node:test";
import { EmulatorPriority } from "../../../src/guest/priority.js";

test("an emulator is put ahead where that is allowed, and back again; one that has ended does no harm", async () => {
  const child = spawn("sleep", ["60"], { stdio: "ignore" });
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  const before = getPriority(pid);
  const priority = new EmulatorPriority(pid);
  priority.hurry();
  assert.ok([before, -9].includes(getPriority(pid)));
  priority.calm();
  assert.ok([before, 0].includes(getPriority(pid)));
  priority.hurryAll();
  assert.ok([before, -9].includes(getPriority(pid)));
  priority.calm();
  assert.ok([before, 0].includes(getPriority(pid)));
  priority.hurryAll();
  new EmulatorPriority(pid).calm();
  assert.ok([before, 0].includes(getPriority(pid)), "whoever put it ahead may be gone");
  child.kill("SIGKILL");
  await once(child, "exit");
  priority.hurry();
  new EmulatorPriority(pid).calm();
});
