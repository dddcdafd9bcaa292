import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { unreadableRecord } from "../../../src/agent/guests/unreadable.js";

const ID = "3f2a1b00-0000-4000-8000-000000000001";

test("a guest that cannot be read keeps the name it can be seen to have, and with it its tenant", async () => {
  const directory = mkdtempSync(join(tmpdir(), "rt-"));
  const path = join(directory, "guest.json");
  const nameOf = async (record: unknown): Promise<string> => {
    writeFileSync(path, JSON.stringify(record, null, 2));
    return (await unreadableRecord(path, ID, "odd")).config.name;
  };
  const parent = { holder: { name: "CN=hosta", roles: [] } };
  try {
    assert.equal(await nameOf({ parent, config: { id: ID, name: "web-1@acme" } }), "web-1@acme");
    assert.equal(await nameOf({ parent, config: { id: ID, name: "../web" } }), "unreadable-3f2a1b00");
    assert.equal(await nameOf({ parent }), "unreadable-3f2a1b00");
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
