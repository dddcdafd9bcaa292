import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLog } from "../../../src/base/index.js";
import { EmulatorCatalogue } from "../../../src/agent/guests/emulator-catalogue.js";

const VERSIONS: Record<string, string> = { "/a": "10.0.2", "/b": "10.0.10", "/c": "100.0.1", "/d": "9.2.0" };

function catalogue(): EmulatorCatalogue {
  return new EmulatorCatalogue({
    configured: Object.keys(VERSIONS).map((path) => ({
      path,
      architecture: path === "/d" ? ("aarch64" as const) : ("x86_64" as const),
      dataDirectories: [`${path}/share`],
    })),
    probe: async (_architecture, { binary = "/on/path" } = {}) => {
      const version = VERSIONS[binary];
      if (version === undefined && binary.includes("broken")) throw new Error("it does not answer");
      return { binary, version: version ?? "7.2.1", machines: ["pc-q35-7.2"] };
    },
    log: silentLog,
  });
}

test("an emulator is meant by its path or its version, of which the newest that fits counts", async () => {
  const there = catalogue();
  assert.equal((await there.choose("x86_64", "/a")).version, "10.0.2");
  assert.deepEqual((await there.choose("x86_64", "/a")).dataDirectories, ["/a/share"]);
  assert.equal((await there.choose("x86_64", "10.0")).binary, "/b", "10 is newer than 2");
  assert.equal((await there.choose("x86_64", "10")).binary, "/b", "100 does not begin with the version 10");
  assert.equal((await there.choose("x86_64", "10.0.2")).binary, "/a");
});

test("what is not configured is not executed, nor one of another architecture", async () => {
  const there = catalogue();
  for (const wanted of ["/bin/sh", "/d", "9.2", "10.0.1", "1"])
    await assert.rejects(there.choose("x86_64", wanted), { code: "no-such-emulator" }, wanted);
});

test("every emulator is listed, also one that does not answer", async () => {
  const broken = new EmulatorCatalogue({
    configured: [{ path: "/broken", architecture: "x86_64", dataDirectories: [] }],
    probe: async () => {
      throw new Error("it does not answer");
    },
    log: silentLog,
  });
  const found = (await broken.installed()).find(({ path }) => path === "/broken");
  assert.deepEqual(found, {
    path: "/broken",
    architecture: "x86_64",
    isDefault: false,
    problem: "it does not answer",
  });
});
