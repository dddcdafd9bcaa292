import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import {
  loadConfiguration,
  parseAddress,
  readCommandLine,
  transportOf,
} from "../../../src/agent/configuration/index.js";
import { isLoopback } from "../../../src/lane/index.js";
import { AgentError } from "../../../src/agent/errors.js";

const scratch = mkdtempSync(join(tmpdir(), "ramet-configuration-"));
after(() => rmSync(scratch, { recursive: true }));

function fileWith(content: unknown): string {
  const path = join(scratch, "rametd.json");
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

function keyFile(content: string, mode = 0o600): string {
  const path = join(scratch, "key");
  writeFileSync(path, content);
  chmodSync(path, mode);
  return path;
}

function refusal(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof AgentError);
    assert.equal(error.code, "bad-configuration");
    return error.message;
  }
  return assert.fail("the configuration was accepted");
}

describe("configuration", () => {
  test("has defaults for everything", () => {
    const configuration = loadConfiguration(undefined);
    assert.deepEqual(configuration.listen, { host: "127.0.0.1", port: 7070 });
    assert.equal(configuration.stateDirectory, "/var/lib/ramet");
    assert.equal(configuration.memoryDirectory, "/dev/shm/ramet");
    assert.equal(configuration.socket, "/run/ramet/rametd.sock");
    assert.equal(configuration.limits.copiesMib, 64);
    assert.equal(configuration.key, undefined);
  });

  test("flags win over the file, and leave its other limits alone", () => {
    const file = fileWith({ name: "file", listen: "127.0.0.1:1", limits: { memoryMib: 64, maxGuests: 3 } });
    const invocation = readCommandLine(["--config", file, "--name", "flag", "--memory-limit-mib", "128"]);
    assert.ok(invocation.action === "run");
    assert.equal(invocation.configuration.name, "flag");
    assert.equal(invocation.configuration.listen.port, 1);
    assert.equal(invocation.configuration.limits.memoryMib, 128);
    assert.equal(invocation.configuration.limits.maxGuests, 3);
  });

  test("names every bad field with its rule, once", () => {
    const message = refusal(() =>
      loadConfiguration(
        fileWith({
          name: "a b",
          listen: "nowhere",
          stateDirectory: "relative",
          logLevel: "loud",
          drainSeconds: "long",
          colour: 1,
          peers: { b: "http://b:1", "!": "ws://c:1" },
          limits: { maxGuests: 0.5, memory: 1 },
        }),
      ),
    );
    const lines = message
      .split("\n")
      .slice(1)
      .map((line) => line.trim());
    for (const start of [
      "name: must be 1 to 63",
      "listen: must be HOST:PORT",
      "stateDirectory: must be an absolute path",
      "logLevel: must be one of trace",
      "drainSeconds: must be a whole number",
      "colour: there is no such field",
      "peers.b: must be wss://HOST:PORT",
      "peers.!: must be 1 to 63",
      "limits.maxGuests: must be a whole number",
      "limits.memory: there is no such field",
    ]) {
      assert.equal(lines.filter((line) => line.startsWith(start)).length, 1, `${start} in:\n${message}`);
    }
    assert.equal(lines.length, 10, message);
  });

  test("refuses files that are missing, not JSON or not an object", () => {
    assert.match(
      refusal(() => loadConfiguration(join(scratch, "none"))),
      /cannot be read as JSON: ENOENT/,
    );
    assert.match(
      refusal(() => loadConfiguration(fileWith("{"))),
      /cannot be read as JSON/,
    );
    assert.match(
      refusal(() => loadConfiguration(fileWith("[]"))),
      /must hold one JSON object/,
    );
  });

  test("without certificates and without an explicit word there is no port", () => {
    assert.equal(transportOf(loadConfiguration(fileWith({ listen: "0.0.0.0:7070" }))), "none");
    assert.match(
      refusal(() => loadConfiguration(fileWith({ keyFile: keyFile("0123456789abcdef") }))),
      /keyFile: is for plain connections on loopback; set plain/,
    );
  });

  test("plain connections need a key and loopback", () => {
    const key = keyFile("0123456789abcdef\n");
    const plain = { plain: true, keyFile: key };
    const configuration = loadConfiguration(fileWith(plain));
    assert.equal(configuration.key?.toString(), "0123456789abcdef");
    assert.equal(transportOf(configuration), "plain");
    assert.match(
      refusal(() => loadConfiguration(fileWith({ plain: true }))),
      /keyFile: must name a pre-shared key/,
    );
    for (const listen of ["0.0.0.0:7070", "192.0.2.1:7070"]) {
      assert.match(
        refusal(() => loadConfiguration(fileWith({ ...plain, listen }))),
        /listen: .* plain connections are for loopback only/,
      );
    }
    loadConfiguration(fileWith({ ...plain, peers: { b: "ws://127.0.0.2:7070" } }));
    for (const b of ["ws://192.0.2.2:7070", "wss://127.0.0.2:7070"]) {
      assert.match(
        refusal(() => loadConfiguration(fileWith({ ...plain, peers: { b } }))),
        /peers\.b: must be wss?:/,
      );
    }
    const invocation = readCommandLine(["--plain", "--key-file", key]);
    assert.ok(invocation.action === "run" && invocation.configuration.plain);
  });

  test("with certificates the agent may listen anywhere, and has no plain peers", () => {
    const tls = { certificate: "/c", key: "/k", authority: "/a" };
    const configuration = loadConfiguration(fileWith({ tls, listen: "192.0.2.1:7070" }));
    assert.equal(transportOf(configuration), "tls");
    assert.match(
      refusal(() => loadConfiguration(fileWith({ tls, listen: "0.0.0.0:7070" }))),
      /advertise: must say where/,
    );
    loadConfiguration(fileWith({ tls, listen: "0.0.0.0:7070", advertise: "wss://a.example:7070" }));
    assert.match(
      refusal(() => loadConfiguration(fileWith({ tls, peers: { b: "ws://127.0.0.1:7070" } }))),
      /peers\.b: must be wss:/,
    );
    assert.match(
      refusal(() => loadConfiguration(fileWith({ tls, plain: true, keyFile: keyFile("0123456789abcdef") }))),
      /plain: must be left out where tls is set/,
    );
    assert.match(
      refusal(() => loadConfiguration(fileWith({ tls: { certificate: "/c" } }))),
      /tls\.key: must be a string/,
    );
    const flags = [
      "--tls-certificate",
      "/c",
      "--tls-key",
      "/k",
      "--tls-authority",
      "/a",
      "--tls-revoked",
      "/r",
    ];
    const invocation = readCommandLine(flags);
    assert.ok(invocation.action === "run");
    assert.deepEqual(invocation.configuration.tls, { ...tls, revoked: "/r" });
  });

  test("refuses keys that are short or open to others", () => {
    assert.match(
      refusal(() => loadConfiguration(fileWith({ plain: true, keyFile: keyFile("short") }))),
      /at least 16 characters/,
    );
    const open = keyFile("0123456789abcdef", 0o644);
    assert.match(
      refusal(() => loadConfiguration(fileWith({ plain: true, keyFile: open }))),
      /chmod 600/,
    );
  });

  test("refuses directories too long for the sockets below them", () => {
    assert.match(
      refusal(() => loadConfiguration(fileWith({ stateDirectory: `/${"x".repeat(60)}` }))),
      /stateDirectory: must be at most \d+ bytes/,
    );
    assert.match(
      refusal(() => loadConfiguration(fileWith({ socket: `/${"x".repeat(107)}` }))),
      /socket: must be at most 107/,
    );
  });

  test("refuses unknown flags and answers help", () => {
    assert.match(
      refusal(() => readCommandLine(["--colour"])),
      /--colour/,
    );
    assert.deepEqual(readCommandLine(["--help"]), { action: "help" });
    assert.deepEqual(readCommandLine(["--version"]), { action: "version" });
    assert.match(
      refusal(() => readCommandLine(["--memory-limit-mib", "many"])),
      /limits.memoryMib: must be a whole number/,
    );
  });

  test("knows addresses", () => {
    assert.deepEqual(parseAddress("[::1]:7"), { host: "::1", port: 7 });
    for (const bad of ["", "host", ":1", "host:65536", "[zz]:1", "a b:1", "::1:7"])
      assert.equal(parseAddress(bad), undefined, bad);
    for (const host of ["127.0.0.11", "::1", "localhost"]) assert.ok(isLoopback(host));
    for (const host of ["0.0.0.0", "::", "10.0.0.1", "127.example.org"]) assert.ok(!isLoopback(host), host);
  });
});
