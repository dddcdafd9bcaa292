import { strict as assert } from "node:assert";
import { describe, it } from "node:test";
import { commandLine } from "../../../src/guest/command-line.js";
import { layoutOf, parseGuestConfig } from "../../../src/guest/index.js";

const layout = layoutOf({ directory: "/run/ramet/a,b", ramPath: "/dev/shm/ramet/ram,1" });
const base = {
  id: "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87",
  name: "web",
  architecture: "x86_64",
  machine: "pc-q35-7.2",
  memoryBytes: 256 * 1024 * 1024,
  cpus: 2,
  kernel: "/boot/vm,linuz",
  append: "console=ttyS0 list=1,2",
  network: { mode: "none" },
  vmgenid: "424e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87",
};

function argumentsOf(change: object = {}, incoming = false): string[] {
  const inherited = { consoleLog: 4, tap: 5 };
  return commandLine({ config: parseGuestConfig({ ...base, ...change }), layout, incoming, inherited });
}

function valueOf(args: string[], option: string): string | undefined {
  return args[args.indexOf(option) + 1];
}

describe("the emulator's command line", () => {
  it("starts from nothing and never runs the guest by itself", () => {
    const args = argumentsOf();
    for (const option of ["-nodefaults", "-no-user-config", "-S"]) assert.ok(args.includes(option));
    assert.ok(!args.includes("-incoming"));
  });

  it("pins the machine and keeps memory in the given file", () => {
    const args = argumentsOf();
    assert.match(valueOf(args, "-machine") ?? "", /^pc-q35-7\.2,memory-backend=ram,suppress-vmdesc=on/);
    assert.equal(
      valueOf(args, "-object"),
      "memory-backend-file,id=ram,size=268435456,mem-path=/dev/shm/ramet/ram,,1,share=on,prealloc=off,dump=off,merge=off",
    );
  });

  it("gives the kernel and its command line as they are", () => {
    const args = argumentsOf();
    assert.equal(valueOf(args, "-kernel"), "/boot/vm,linuz");
    assert.equal(valueOf(args, "-append"), "console=ttyS0 list=1,2");
  });

  it("boots from the disks without a kernel, where the emulator has firmware for that", () => {
    const args = argumentsOf({ kernel: undefined, append: "" });
    for (const option of ["-kernel", "-initrd", "-append"]) assert.ok(!args.includes(option), option);
    for (const change of [
      { kernel: undefined },
      { kernel: undefined, append: "", initrd: "/initrd" },
      { kernel: undefined, append: "", architecture: "aarch64", machine: "virt-7.2", vmgenid: undefined },
    ])
      assert.throws(() => argumentsOf(change), { code: "bad-config" });
  });

  it("names a tenant's guest whole", () => {
    assert.equal(valueOf(argumentsOf({ name: "web@acme" }), "-name"), "guest=web@acme,debug-threads=on");
    assert.throws(() => argumentsOf({ name: "web@" }), { code: "bad-config" });
  });

  it("doubles commas in paths within option lists", () => {
    assert.match(
      valueOf(argumentsOf(), "-qmp") ?? "",
      /^unix:\/run\/ramet\/a,,b\/run\/qmp\.sock,server=on,wait=off$/,
    );
  });

  it("waits for a device state when asked", () => {
    const args = argumentsOf({}, true);
    assert.equal(valueOf(args, "-incoming"), "defer");
  });

  it("gives parent and child the same devices in every mode of the network", () => {
    const mac = "52:54:00:12:34:56";
    const modes = [
      { mode: "isolated", mac },
      { mode: "user", mac, forwards: [] },
      { mode: "tap", mac, tap: "tap0" },
    ];
    const devices = modes.map((network) => {
      const args = argumentsOf({ network });
      return args.filter((_, index) => args[index - 1] === "-device");
    });
    assert.equal(devices[0]?.length, 3);
    assert.deepEqual(devices[0], devices[1]);
    assert.deepEqual(devices[0], devices[2]);
  });

  it("writes the console's log and uses a tap through descriptors it inherits", () => {
    const args = argumentsOf({ network: { mode: "tap", mac: "52:54:00:12:34:56", tap: "tap0" } });
    assert.equal(valueOf(args, "-add-fd"), "fd=4,set=1");
    assert.match(valueOf(args, "-chardev") ?? "", /,logfile=\/dev\/fdset\/1,logappend=on$/);
    assert.equal(valueOf(args, "-netdev"), "tap,id=net0,fd=5,vhost=off");
    assert.doesNotMatch(args.join(" "), /tap0/);
  });

  it("forwards ports", () => {
    const forwards = [{ host: "127.0.0.2", hostPort: 8080, guestPort: 80, protocol: "udp" }];
    const args = argumentsOf({ network: { mode: "user", mac: "52:54:00:12:34:56", forwards } });
    assert.equal(valueOf(args, "-netdev"), "user,id=net0,hostfwd=udp:127.0.0.2:8080-:80");
  });

  it("gives an aarch64 guest no device of a PC", () => {
    const args = argumentsOf({ architecture: "aarch64", machine: "virt-7.2", vmgenid: undefined }).join(" ");
    assert.doesNotMatch(args, /vmgenid|ICH9|sata/);
    assert.match(args, /-cpu cortex-a57/);
  });
});
