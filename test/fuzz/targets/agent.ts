import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PAGE_HASH_BYTES } from "../../../src/base/index.js";
import {
  loadConfiguration,
  parseAddress,
  formatAddress,
  readCommandLine,
} from "../../../src/agent/configuration/index.js";
import { AgentError } from "../../../src/agent/errors.js";
import { readRecord } from "../../../src/agent/guests/guest-record.js";
import { FileNotes } from "../../../src/agent/transfers/child-notes.js";
import { readTransferRecords } from "../../../src/agent/transfers/transfer-record.js";
import { orRefusal, refusalOf, type Target } from "../engine/target.js";
import { PARAMS } from "./control-samples.js";
import { GUESTS } from "./guest-samples.js";
import { scratchDirectory } from "./scratch.js";

const SMALL_BYTES = 1024 * 1024;
const allocationBytes = (inputBytes: number) => SMALL_BYTES + inputBytes * 256;

function fileOf(input: Buffer, name: string): string {
  const path = join(scratchDirectory(), name);
  writeFileSync(path, input, { mode: 0o600 });
  return path;
}

const SHA256 = "0123456789abcdef".repeat(4);

/** A guest's record on disk. */
export const agentRecord: Target = {
  name: "agent-record",
  covers: ["src/agent/guests/guest-record.ts", "src/guest/config.ts"],
  format: "json",
  maxInputBytes: 8192,
  allocationBytes,
  *seeds() {
    for (const config of GUESTS) {
      const record = {
        version: 1,
        state: "running",
        createdAtMs: 1_700_000_000_000,
        attached: true,
        boot: { kernel: { sha256: SHA256, sizeBytes: 5, source: "/k" } },
        config,
      };
      yield Buffer.from(JSON.stringify(record));
      const more = {
        message: "m",
        parent: { guest: "a", host: "b", transfer: 1 },
        outgoing: { transfer: 1, host: "c" },
        boot: { ...record.boot, initrd: { sha256: SHA256, sizeBytes: 5, source: "/i" } },
      };
      yield Buffer.from(JSON.stringify({ ...record, ...more }));
    }
  },
  async run(input) {
    try {
      const record = await readRecord(fileOf(input, "record.json"));
      assert.ok(record !== undefined);
      const path = join(scratchDirectory(), "again.json");
      writeFileSync(path, JSON.stringify(record));
      assert.deepEqual(await readRecord(path), record, "a record written and read is the same");
      return record.state;
    } catch (error) {
      return refusalOf(AgentError, error);
    }
  },
};

/** A transfer's record, of either side, as an earlier agent or another version may have left it. */
export const agentTransfer: Target = {
  name: "agent-transfer",
  covers: ["src/agent/transfers/transfer-record.ts"],
  format: "json",
  maxInputBytes: 8192,
  allocationBytes,
  *seeds() {
    const common = { version: 1, transfer: 7, startedAtMs: 5 };
    const parent = {
      ...{
        ...common,
        side: "parent",
        kind: "migrate",
        step: "paging",
        token: "abcdefghijklmnop",
        url: "ws://b:1",
      },
      ...{ host: "b", peerGuest: "web", verify: true, paused: false, sweep: "on", compress: true },
    };
    yield Buffer.from(JSON.stringify(parent));
    const holder = { kind: "certificate", name: "b" };
    yield Buffer.from(
      JSON.stringify({
        ...parent,
        holder,
        rateLimitBytesPerSecond: 4096,
        priority: "low",
        workingSet: true,
        linkDeadlineMs: 5,
      }),
    );
    for (const params of PARAMS["peer.prepare"] ?? []) {
      const child = { ...common, side: "child", params, holder, step: "running", incarnation: 2 };
      yield Buffer.from(JSON.stringify(child));
      const complete = { verify: { checked: 5, mismatches: 0 } };
      yield Buffer.from(JSON.stringify({ ...child, complete, failed: "why" }));
    }
  },
  run(input) {
    const outcomes = ["parent", "child"].map((side) => {
      const directory = join(scratchDirectory(), `transfer-of-${side}`);
      const path = join(directory, `transfer-7-${side}.json`);
      mkdirSync(directory, { recursive: true });
      writeFileSync(path, input);
      return orRefusal(AgentError, () => {
        const read = () => {
          const { parents, children } = readTransferRecords(directory);
          return [...parents, ...children].map((file) => file.record);
        };
        const records = read();
        assert.equal(records.length, 1);
        writeFileSync(path, JSON.stringify(records[0]));
        assert.deepEqual(read(), records, "a record written and read is the same");
        return records[0]?.step ?? "";
      });
    });
    return outcomes.join(" ");
  },
};

const CONFIGURATIONS: readonly object[] = [
  {},
  {
    name: "a",
    stateDirectory: "/var/lib/ramet",
    memoryDirectory: "/dev/shm/ramet",
    listen: "127.0.0.1:7070",
    socket: "/run/ramet/rametd.sock",
    advertise: "wss://10.0.0.1:7070",
    tls: { certificate: "/a", key: "/b", authority: "/c", revoked: "/d" },
    peers: { b: "wss://10.0.0.2:7070", c: "wss://[::1]:7070" },
    forwardAddress: "0.0.0.0",
    logLevel: "debug",
    drainSeconds: 5,
    limits: {
      memoryMib: 4096,
      memoryReserveMib: 128,
      copiesMib: 32,
      maxGuests: 10,
      warmEmulators: 1,
      warmIdleSeconds: 5,
    },
  },
  { listen: "0.0.0.0:7070" },
  { listen: "[::1]:7070", plain: true, keyFile: "/k", peers: { b: "ws://[::1]:1" }, limits: {} },
];

/** The agent's configuration file. */
export const agentConfiguration: Target = {
  name: "agent-configuration",
  covers: [
    "src/agent/configuration/load.ts",
    "src/agent/configuration/schema.ts",
    "src/agent/configuration/transport.ts",
  ],
  format: "json",
  maxInputBytes: 8192,
  allocationBytes,
  *seeds() {
    for (const configuration of CONFIGURATIONS) yield Buffer.from(JSON.stringify(configuration));
  },
  run: (input) =>
    orRefusal(AgentError, () => {
      const { listen } = loadConfiguration(fileOf(input, "rametd.json"));
      assert.deepEqual(
        parseAddress(formatAddress(listen)),
        listen,
        "an address written and read is the same",
      );
      return "configuration";
    }),
};

/** The agent's command line: arguments separated by line ends. */
export const agentFlags: Target = {
  name: "agent-flags",
  covers: ["src/agent/configuration/flags.ts", "src/agent/configuration/load.ts"],
  format: "text",
  maxInputBytes: 2048,
  allocationBytes,
  *seeds() {
    yield Buffer.from("--name\na\n--listen\n127.0.0.1:0\n--memory-limit-mib\n512\n--log-level=info");
    yield Buffer.from("--state-directory\n/a\n--memory-directory\n/b\n--socket\n/c\n--plain\n--key-file\n/d");
    yield Buffer.from("--tls-certificate\n/a\n--tls-key\n/b\n--tls-authority\n/c\n--tls-revoked\n/d");
    yield Buffer.from("--help");
    yield Buffer.from("--version");
    yield Buffer.from("--config\n/does/not/exist");
  },
  run: (input) => orRefusal(AgentError, () => readCommandLine(input.toString("utf8").split("\n")).action),
};

const NOTES_PAGES = 100;
const ZEROS_BYTES = Math.ceil(NOTES_PAGES / 8);

/** A child's notes, as an earlier agent or a full disk may have left them: `zeros`, then `digests`. */
export const agentNotes: Target = {
  name: "agent-notes",
  covers: ["src/agent/transfers/child-notes.ts"],
  format: "bytes",
  maxInputBytes: 2048,
  allocationBytes,
  *seeds() {
    const digests = Buffer.alloc(NOTES_PAGES * PAGE_HASH_BYTES, 3);
    yield Buffer.concat([Buffer.alloc(ZEROS_BYTES), digests]);
    yield Buffer.concat([Buffer.alloc(ZEROS_BYTES, 0xff), digests]);
    yield Buffer.concat([Buffer.alloc(ZEROS_BYTES, 0x0f), digests]);
    yield Buffer.alloc(5);
  },
  run(input) {
    const directory = join(scratchDirectory(), "notes");
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, "zeros"), input.subarray(0, ZEROS_BYTES));
    writeFileSync(join(directory, "digests"), input.subarray(ZEROS_BYTES));
    return orRefusal(AgentError, () => {
      const notes = new FileNotes(directory, { pageCount: NOTES_PAGES, verify: true, recover: true });
      try {
        let pages = 0;
        for (const { first, count } of notes.zeros()) {
          assert.ok(count >= 1 && first + count <= NOTES_PAGES);
          pages += count;
        }
        assert.equal(notes.digests().length, NOTES_PAGES * PAGE_HASH_BYTES);
        return `notes ${pages >> 4}`;
      } finally {
        notes.close();
      }
    });
  },
};
