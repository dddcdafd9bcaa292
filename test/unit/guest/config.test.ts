import { strict as assert } from "node:assert";
import { describe, it } from "node:test";
import { checkHost, GuestError, layoutOf, parseForward, parseGuestConfig } from "../../../src/guest/index.js";
import { defaultMachine } from "../../../src/guest/index.js";

const GUEST = {
  id: "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87",
  name: "web",
  architecture: "x86_64",
  machine: "pc-q35-7.2",
  memoryBytes: 256 * 1024 * 1024,
  cpus: 1,
  kernel: "/boot/vmlinuz",
  initrd: "/boot/initrd",
  append: "console=ttyS0 a=1,2",
  network: { mode: "user", mac: "52:54:00:12:34:56", forwards: [{ hostPort: 8080, guestPort: 80 }] },
  vmgenid: "424e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87",
};

function refusal(change: object): string {
  try {
    parseGuestConfig({ ...GUEST, ...change });
  } catch (error) {
    assert.ok(error instanceof GuestError && error.code === "bad-config");
    return error.message;
  }
  throw new assert.AssertionError({ message: "the configuration was accepted" });
}

const DISK = {
  name: "disk0",
  sizeBytes: 1024 * 1024,
  chain: [{ id: "0b1c2d3e-0000-4000-8000-000000000000", format: "qcow2", path: "/disks/a" }],
};

describe("a guest's configuration", () => {
  it("is completed with defaults", () => {
    const config = parseGuestConfig(GUEST);
    assert.equal(config.accelerator, "tcg");
    assert.deepEqual(config.network, {
      mode: "user",
      mac: "52:54:00:12:34:56",
      forwards: [{ host: "127.0.0.1", hostPort: 8080, guestPort: 80, protocol: "tcp" }],
    });
    assert.deepEqual(parseGuestConfig(JSON.parse(JSON.stringify(config))), config);
  });

  const refused: [string, object, RegExp][] = [
    [
      "an unversioned machine",
      { machine: "q35" },
      /machine: must be a versioned machine type such as pc-q35-7\.2/,
    ],
    ["another architecture's machine", { machine: "virt-7.2" }, /machine: must be/],
    ["a graphics card", { vga: "std" }, /vga is not possible: the contents of a graphics card's memory/],
    ["firmware variables", { pflash: "/vars" }, /pflash is not possible/],
    ["a drive in the emulator's words", { drive: "file=/x" }, /drive is not possible: .*use `disks`/],
    ["a disk out of place", { disks: [{ ...DISK, name: "disk1" }] }, /disks\.0\.name: must be disk0/],
    ["a disk without a layer", { disks: [{ ...DISK, chain: [] }] }, /disks\.0\.chain/],
    [
      "half a sector",
      { disks: [{ ...DISK, sizeBytes: 1000 }] },
      /disks\.0\.sizeBytes: must be whole sectors/,
    ],
    ["a rate nobody could use", { disks: [{ ...DISK, iops: 1 }] }, /disks\.0\.iops/],
    ["a cache that loses what was flushed", { disks: [{ ...DISK, cache: "unsafe" }] }, /disks\.0\.cache/],
    [
      "one layer that two disks write",
      { disks: [DISK, { ...DISK, name: "disk1" }] },
      /disks: must each have a newest layer of their own/,
    ],
    ["an unknown option", { colour: "red" }, /there is no option colour/],
    [
      "memory that is no whole number of 2 MiB",
      { memoryBytes: 256 * 1024 * 1024 + 4096 },
      /memoryBytes: must be a multiple of 2097152/,
    ],
    ["too little memory", { memoryBytes: 2 * 1024 * 1024 }, /memoryBytes: must be at least 67108864/],
    ["too much memory", { memoryBytes: 1024 ** 4 }, /memoryBytes: must be at most/],
    ["no processor", { cpus: 0 }, /cpus: must be at least 1/],
    ["too many processors", { cpus: 65 }, /cpus: must be at most 64 for x86_64/],
    ["whatever processor the host has", { cpuModel: "host" }, /cpuModel: stands for whatever a host offers/],
    ["processor features", { cpuModel: "qemu64,+avx" }, /cpuModel: must be the name/],
    ["a relative path", { kernel: "vmlinuz" }, /kernel: must be an absolute path/],
    ["a command line of two lines", { append: "a\nb" }, /append: must be one line/],
    ["a command line that is too long", { append: "x".repeat(2048) }, /append: must have at most 2047 bytes/],
    [
      "a multicast address",
      { network: { mode: "isolated", mac: "53:54:00:12:34:56" } },
      /network\.mac: must be a unicast MAC/,
    ],
    [
      "a port out of range",
      { network: { ...GUEST.network, forwards: [{ hostPort: 0, guestPort: 80 }] } },
      /network\.forwards\.0\.hostPort/,
    ],
    [
      "a long interface name",
      { network: { mode: "tap", mac: "52:54:00:12:34:56", tap: "x".repeat(16) } },
      /network\.tap/,
    ],
    ["a name with blanks", { name: "a b" }, /name: must be/],
    ["no generation id on x86_64", { vmgenid: undefined }, /vmgenid: is needed/],
    [
      "a generation id on aarch64",
      { architecture: "aarch64", machine: "virt-7.2" },
      /vmgenid: does not exist on aarch64/,
    ],
  ];
  for (const [what, change, reason] of refused) {
    it(`is refused with ${what}`, () => assert.match(refusal(change), reason));
  }

  it("is refused with all its reasons at once", () => {
    const message = refusal({ cpus: 0, name: "", kernel: "x" });
    assert.match(message, /cpus: .*; /);
    assert.match(message, /kernel: /);
    assert.match(message, /name: /);
  });

  it("is checked against the host: a missing kernel is named", () => {
    const config = parseGuestConfig({ ...GUEST, kernel: "/nonexistent/vmlinuz" });
    assert.throws(() => checkHost(config), /the guest's kernel \/nonexistent\/vmlinuz cannot be read/);
  });
});

describe("a port forward", () => {
  it("is checked", () => {
    assert.deepEqual(parseForward({ hostPort: 1, guestPort: 2 }), {
      host: "127.0.0.1",
      hostPort: 1,
      guestPort: 2,
      protocol: "tcp",
    });
    assert.throws(() => parseForward({ hostPort: 1 }), /the port forward is refused: guestPort/);
    assert.throws(
      () => parseForward({ host: "x,y", hostPort: 1, guestPort: 2 }),
      /host: must be an IPv4 address/,
    );
  });
});

describe("a guest's directory", () => {
  it("must leave room for the sockets' names", () => {
    assert.throws(() => layoutOf({ directory: `/${"d".repeat(100)}`, ramPath: "/dev/shm/x" }), /is too deep/);
  });
});

describe("the machine type of a new guest", () => {
  const probe = { binary: "/bin/qemu", version: "10.0.2" };
  it("is the oldest that all supported emulators know", () => {
    assert.equal(
      defaultMachine("x86_64", { ...probe, machines: ["pc-q35-2.6", "pc-q35-7.2", "pc-q35-10.0"] }),
      "pc-q35-7.2",
    );
    assert.equal(
      defaultMachine("aarch64", { ...probe, machines: ["virt-8.0", "virt-9.0", "virt-10.0"] }),
      "virt-8.0",
    );
  });
  it("is refused when there is none", () => {
    assert.throws(
      () => defaultMachine("x86_64", { ...probe, machines: ["pc-q35-5.0"] }),
      /knows no versioned machine type/,
    );
  });
});
