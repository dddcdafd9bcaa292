import type { MethodName } from "../../../src/control/index.js";

const UUID = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87";
const SHA256 = "0123456789abcdef".repeat(4);
const MIB = 1024 * 1024;

const PEER_GUEST = {
  name: "web-1",
  architecture: "x86_64",
  machine: "pc-q35-7.2",
  memoryBytes: 256 * MIB,
  cpus: 1,
  append: "console=ttyS0",
  kernel: { sha256: SHA256, sizeBytes: 5 * MIB },
  initrd: { sha256: SHA256, sizeBytes: 2 * MIB },
  network: { mode: "none" },
  attached: true,
  vmgenid: UUID,
};

const PREPARE = {
  transfer: 7,
  kind: "fork",
  guest: PEER_GUEST,
  parent: { guest: "web", host: "a" },
  emulatorVersion: "7.2.19",
  parentUrl: "ws://10.0.0.1:7070",
  token: "abcdefghijklmnop",
  pageCount: 65536,
  verify: false,
  paused: false,
};

/** Parameters that are right, and the whole breadth of what may be given. */
export const PARAMS: { [Name in MethodName]?: readonly object[] } = {
  "agent.info": [{}],
  "agent.audit": [{}, { count: 5 }],
  "agent.reload": [{}],
  "events.subscribe": [{}, { topics: ["guest", "transfer"] }, { topics: [] }],
  "guest.run": [
    { name: "web", kernel: "/boot/vmlinuz" },
    {
      name: "web",
      kernel: "/boot/vmlinuz",
      initrd: "/boot/initrd",
      append: "quiet",
      memoryMiB: 512,
      cpus: 2,
      architecture: "aarch64",
      machine: "virt-7.2",
      network: { mode: "user", mac: "52:54:00:12:34:56", forwards: ["8080:80", "127.0.0.1:5353:53/udp"] },
    },
    { name: "web", kernel: "/k", network: { mode: "tap", bridge: "br0" } },
  ],
  "guest.list": [{}],
  "guest.show": [{ name: "web" }],
  "guest.stop": [{ name: "web", deadlineMs: 5000 }],
  "guest.kill": [{ name: "web" }],
  "guest.freeze": [{ name: "web" }],
  "guest.thaw": [{ name: "web" }],
  "guest.exchange": [
    { name: "web" },
    { name: "web", emulator: "10.0" },
    { name: "web", emulator: "/opt/qemu" },
  ],
  "guest.swap": [{ name: "web", child: "web-1" }],
  "guest.remove": [{ name: "web" }],
  "guest.logs": [{ name: "web", source: "console", lines: 10, follow: true }],
  "guest.console.open": [{ name: "web" }],
  "guest.console.input": [{ console: 1, data: Buffer.from("ls\n") }],
  "guest.console.close": [{ console: 1 }],
  "guest.warm": [{ name: "web", to: ["b:7070"], count: 2 }],
  "guest.fork": [
    { name: "web" },
    {
      name: "web",
      to: ["b", "ws://c:7070"],
      count: 3,
      names: ["x", "y", "z"],
      forwards: ["9000:80"],
      network: "attached",
      verify: true,
      paused: true,
      sweep: "held",
      compression: "lz4",
      rateLimitBytesPerSecond: 1048576,
      priority: "high",
      workingSet: false,
    },
  ],
  "guest.migrate": [
    { name: "web", to: "b", verify: true, compression: "none", rateLimitBytesPerSecond: 4096 },
  ],
  "image.import": [
    { path: "/srv/disk.qcow2" },
    { path: "/srv/disk", identifier: "debian-12", tenant: "acme", format: "raw", work: 1 },
  ],
  "image.list": [{}, { tenant: "acme" }],
  "image.show": [{ reference: "debian-12" }],
  "image.verify": [{ reference: "0123abcd", tenant: "acme", work: 2 }],
  "image.remove": [{ reference: "debian-12" }],
  "image.stored": [{}],
  "image.pull": [
    { reference: "debian-12", from: "hostb" },
    { reference: "0123abcd", from: "wss://b:7900", tenant: "acme", identifier: "root", work: 3 },
  ],
  "peer.findImage": [{ reference: "debian-12", tenant: "acme" }],
  "peer.openImage": [{ digest: "0123456789abcdef".repeat(4), tenant: "default" }],
  "peer.closeBlocks": [{ grant: 7 }],
  "image.prune": [{ unusedForMs: 1000, keepOwned: true, dryRun: true }],
  "transfer.list": [{ active: true }],
  "transfer.show": [{ transfer: 7, role: "child" }],
  "transfer.cancel": [{ transfer: 7, reason: "enough" }],
  "transfer.sweep": [{ transfer: 7, sweep: "held" }],
  "transfer.steer": [
    { transfer: 7, rateLimitBytesPerSecond: 0, priority: "low", sweep: "on" },
    { transfer: 7, rateLimitBytesPerSecond: 4096 },
  ],
  "transfer.run": [{ transfer: 7 }],
  "emulator.list": [{}],
  "exchange.start": [{}, { emulator: "10.0", parallel: 4, waitMs: 60_000 }],
  "exchange.show": [{}],
  "exchange.stop": [{}],
  "peer.list": [{}],
  "peer.ping": [{ to: "b", count: 3 }],
  "peer.info": [{}],
  "peer.prepare": [
    PREPARE,
    {
      ...PREPARE,
      kind: "migrate",
      guest: {
        ...PEER_GUEST,
        id: UUID,
        network: {
          mode: "user",
          mac: "52:54:00:12:34:56",
          forwards: [{ address: "127.0.0.1", hostPort: 8080, guestPort: 80, protocol: "tcp" }],
        },
      },
    },
    {
      ...PREPARE,
      guest: { ...PEER_GUEST, network: { mode: "tap", mac: "52:54:00:12:34:56", bridge: "br0", tap: "t0" } },
    },
  ],
  "peer.putFile": [{ sha256: SHA256, offset: 0, bytes: Buffer.from("kernel"), last: true }],
  "peer.relayTo": [
    {
      transfer: 7,
      to: { transfer: 8, token: "a".repeat(32), holder: { kind: "certificate", name: "CN=b" } },
    },
  ],
  "peer.relayFrom": [
    {
      transfer: 7,
      from: {
        host: "b",
        url: "wss://192.0.2.2:7070",
        token: "a".repeat(32),
        holder: { kind: "certificate", name: "CN=b" },
      },
    },
  ],
  "peer.start": [{ transfer: 7, deviceState: Buffer.from("QEVM"), run: true }],
  "peer.run": [{ transfer: 7 }],
  "peer.show": [{ transfer: 7 }],
  "peer.cancel": [{ transfer: 7, reason: "cancelled" }],
  "peer.warm": [{ guest: PEER_GUEST, emulatorVersion: "7.2.19", count: 2 }],
  "peer.spare": [{ transfer: 7, token: "a".repeat(32), parentUrl: "wss://192.0.2.1:7070" }],
};
