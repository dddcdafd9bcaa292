import assert from "node:assert/strict";
import { test } from "node:test";
import {
  childrenOf,
  isFinal,
  METHODS,
  TRANSFER_PHASES,
  type MethodName,
} from "../../../src/control/index.js";
import { describeIssues } from "../../../src/control/describe.js";

function problem(method: MethodName, params: unknown): string {
  const parsed = METHODS[method].params.safeParse(params);
  assert.equal(parsed.success, false, `${method} takes ${JSON.stringify(params)}`);
  return describeIssues(parsed.error?.issues ?? [], params);
}

const RUN = { name: "web", kernel: "/boot/vmlinuz" };
const NAME_RULE =
  "name must be made of lower-case letters, digits and dashes, with a letter or digit first and last";

test("every broken rule of guest.run is said with its field", () => {
  const cases: [object, string][] = [
    [{ ...RUN, name: undefined }, "name is missing"],
    [{ ...RUN, name: "Web" }, NAME_RULE],
    [{ ...RUN, name: "-web" }, NAME_RULE],
    [{ ...RUN, name: "web\n" }, NAME_RULE],
    [{ ...RUN, name: ".." }, NAME_RULE],
    [{ ...RUN, name: "" }, NAME_RULE],
    [{ ...RUN, name: "a".repeat(64) }, "name must have at most 63 characters"],
    [{ ...RUN, kernel: "vmlinuz" }, "kernel must be an absolute path on the agent's machine"],
    [{ ...RUN, append: "a\nb" }, "append must be one line"],
    [{ ...RUN, memoryMiB: 4 }, "memoryMiB must be at least 16"],
    [{ ...RUN, memoryMiB: 0x200000 }, "memoryMiB must be at most 1048576"],
    [{ ...RUN, memoryMiB: "256" }, "memoryMiB must be a number"],
    [{ ...RUN, memoryMiB: 20.5 }, "memoryMiB must be a whole number"],
    [{ ...RUN, cpus: 0 }, "cpus must be at least 1"],
    [{ ...RUN, architecture: "vax" }, "architecture must be one of x86_64, aarch64"],
    [{ ...RUN, memory: 256 }, "memory is not a known field"],
    [{ ...RUN, network: { mode: "bridge" } }, "network.mode must be one of none, user, tap"],
    [{ ...RUN, network: { mode: "none", mac: "x" } }, "network.mac is not a known field"],
    [
      { ...RUN, network: { mode: "tap", mac: "01:00:00:00:00:00" } },
      "network.mac must be a unicast MAC address in lower case",
    ],
    [
      { ...RUN, network: { mode: "tap", bridge: "../../x" } },
      "network.bridge must be a network interface's name",
    ],
    [{ name: "web" }, "the parameters must have a kernel, or a disk to boot from"],
    [{ name: "web", initrd: "/initrd", disks: [{ sizeBytes: 512 }] }, "initrd must come with a kernel"],
    [
      { name: "web", architecture: "aarch64", disks: [{ sizeBytes: 512 }] },
      "architecture must be x86_64 without a kernel: no other emulator brings firmware",
    ],
    [
      { ...RUN, name: "web@default" },
      "name must not name the tenant default, whose guests have plain names: web",
    ],
    [{ name: "Web", kernel: "x" }, `${NAME_RULE} (and 1 more problem)`],
  ];
  for (const [params, expected] of cases) assert.equal(problem("guest.run", params), expected);
});

test("forwards are refused unless both ports and the address make sense", () => {
  const rule = "network.forwards[0] must be [ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp], such as 8080:80";
  for (const text of [
    "80",
    "0:80",
    "80:0",
    "70000:80",
    "1.2.3:80:80",
    "80:80/sctp",
    "a:80:80",
    "80:80 ",
    "-1:80",
    "::1:80:80",
  ]) {
    assert.equal(problem("guest.run", { ...RUN, network: { mode: "user", forwards: [text] } }), rule, text);
  }
});

test("a fork makes one child for each host, name or count", () => {
  const fork = (params: object) => childrenOf(METHODS["guest.fork"].params.parse({ name: "web", ...params }));
  assert.equal(fork({}), 1);
  assert.equal(fork({ to: ["a", "b"] }), 2);
  assert.equal(fork({ count: 5, to: ["a", "b"] }), 5);
  assert.equal(fork({ names: ["x", "y", "z"] }), 3);
  assert.equal(
    problem("guest.fork", { name: "web", to: ["a", "b"], count: 1 }),
    "count must be at least the number of hosts (2)",
  );
  assert.equal(
    problem("guest.fork", { name: "web", count: 2, names: ["x"] }),
    "names must have one name for each of the 2 children",
  );
  assert.equal(problem("guest.fork", { name: "web", names: ["x", "x"] }), "names must all differ");
  assert.equal(problem("guest.fork", { name: "web", count: 0 }), "count must be at least 1");
  assert.equal(problem("guest.fork", { name: "web", verfy: true }), "verfy is not a known field");
});

const PREPARE = {
  transfer: 1,
  kind: "fork",
  guest: {
    name: "web",
    architecture: "x86_64",
    machine: "pc-q35-7.2",
    memoryBytes: 1 << 20,
    cpus: 1,
    append: "",
    kernel: { sha256: "a".repeat(64), sizeBytes: 10 },
    network: { mode: "none" },
    attached: false,
  },
  parent: { guest: "web", host: "a" },
  emulatorVersion: "7.2.19",
  parentUrl: "ws://127.0.0.1:7001",
  token: "t".repeat(32),
  pageCount: 256,
  verify: false,
  paused: false,
};

test("what a peer prepares for is checked to the last field", () => {
  assert.equal(METHODS["peer.prepare"].params.safeParse(PREPARE).success, true);
  const guest = PREPARE.guest;
  assert.equal(
    problem("peer.prepare", { ...PREPARE, pageCount: 255 }),
    "pageCount must be guest.memoryBytes in pages of 4096 bytes",
  );
  assert.equal(
    problem("peer.prepare", { ...PREPARE, parentUrl: "unix:other.sock" }),
    "parentUrl must be wss://HOST:PORT, ws://HOST:PORT on loopback, or the agent's own unix:/PATH",
  );
  assert.equal(
    problem("peer.prepare", { ...PREPARE, guest: { ...guest, memoryBytes: 5000 } }),
    "guest.memoryBytes must be whole pages of 4096 bytes (and 1 more problem)",
  );
  assert.equal(
    problem("peer.prepare", { ...PREPARE, guest: { ...guest, machine: "q35,dump=on" } }),
    "guest.machine must be a machine type",
  );
  assert.equal(
    problem("peer.prepare", { ...PREPARE, token: "short" }),
    "token must be 16 to 128 characters of base64url",
  );
  assert.equal(
    problem("peer.prepare", { ...PREPARE, transfer: 2 ** 32 }),
    "transfer must be at most 4294967295",
  );
  assert.equal(
    problem("peer.putFile", { sha256: "../etc", offset: 0, bytes: Buffer.alloc(0), last: true }),
    "sha256 must be 64 hexadecimal digits in lower case",
  );
  assert.equal(
    problem("peer.putFile", { sha256: "a".repeat(64), offset: 0, bytes: "text", last: true }),
    "bytes must be a byte string of at most 1048576 bytes",
  );
});

test("only the last three phases are final", () => {
  assert.deepEqual(TRANSFER_PHASES.filter(isFinal), ["complete", "failed", "cancelled"]);
});
