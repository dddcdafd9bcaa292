import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { diskArguments, freezeCommand, nodeOf, topNodes, type GuestDisk } from "../../../src/guest/disks.js";
import { EmulatorDisks, GuestError } from "../../../src/guest/index.js";

const DIGEST = "ab".repeat(32);
const layer = (digit: string, format: "qcow2" | "raw" = "qcow2") => ({
  id: `${digit.repeat(8)}-0000-4000-8000-000000000000`,
  format,
  path: `/disks/${digit}`,
});
const disk: GuestDisk = {
  name: "disk1",
  sizeBytes: 1024 * 1024,
  chain: [layer("2"), layer("1"), { id: DIGEST, format: "raw", path: "/images/x" }],
  cache: "writeback",
};

describe("a guest's disks on the emulator's command line", () => {
  const args = diskArguments([disk], "disable-modern=on");
  const nodes = args
    .filter((_, index) => args[index - 1] === "-blockdev")
    .map((text) => JSON.parse(text) as Record<string, unknown>);

  it("are a node for each layer, the lowest first, of which only the newest is written", () => {
    assert.deepEqual(
      nodes.map((node) => [node["driver"], node["node-name"], node["backing"], node["read-only"]]),
      [
        ["raw", `disk1-${"ab".repeat(12)}`, undefined, true],
        ["qcow2", "disk1-111111110000400080000000", `disk1-${"ab".repeat(12)}`, true],
        ["qcow2", "disk1-222222220000400080000000", "disk1-111111110000400080000000", false],
      ],
    );
    for (const node of nodes) {
      assert.ok(String(node["node-name"]).length <= 31);
      assert.ok(!("read-only" in (node["file"] as object)), "the file follows its layer");
    }
  });

  it("read nothing that a file says it stands on", () => {
    const [node] = diskArguments([{ ...disk, chain: [layer("2")] }], "").slice(1);
    assert.equal((JSON.parse(node ?? "{}") as Record<string, unknown>)["backing"], null);
  });

  it("are devices at places of their own, which stop the guest when the host fails them", () => {
    const device = args.at(-1) ?? "";
    assert.match(device, /^virtio-blk-pci,id=disk1,drive=disk1-2222/);
    for (const part of ["addr=0x11", "serial=disk1", "werror=stop", "rerror=stop", "disable-modern=on"])
      assert.ok(device.split(",").includes(part), part);
  });

  it("leave what the host has of their files in memory where it is, for whoever stands on them", () => {
    for (const node of nodes) assert.equal((node["file"] as Record<string, unknown>)["drop-cache"], false);
  });

  it("go past the page cache where that is asked for, and never lose a flush", () => {
    const [node] = diskArguments([{ ...disk, cache: "none" }], "").slice(1);
    const { cache } = JSON.parse(node ?? "{}") as { cache: unknown };
    assert.deepEqual(cache, { direct: true, "no-flush": false });
  });
});

describe("a running emulator's disks", () => {
  const freeze = { disk, overlay: layer("3") };

  it("are frozen together, by one command", () => {
    const data = { node: nodeOf(disk, layer("2")), overlay: nodeOf(disk, layer("3")) };
    assert.deepEqual(freezeCommand([freeze]), { command: "blockdev-snapshot", args: data });
    assert.deepEqual(freezeCommand([freeze, freeze]), {
      command: "transaction",
      args: {
        actions: [
          { type: "blockdev-snapshot", data },
          { type: "blockdev-snapshot", data },
        ],
      },
    });
    assert.equal(freezeCommand([]), undefined);
  });

  it("lose overlays that were opened when one cannot be", async () => {
    const calls: string[] = [];
    const disks = new EmulatorDisks(async (command, args) => {
      const name = (args as Record<string, string>)["node-name"];
      calls.push(`${command} ${name}`);
      if (name?.startsWith("disk2") === true) throw new GuestError("command-failed", "no");
      return {};
    });
    await assert.rejects(disks.open([freeze, { ...freeze, disk: { ...disk, name: "disk2" } }]), {
      code: "command-failed",
    });
    assert.deepEqual(calls, [
      "blockdev-add disk1-333333330000400080000000",
      "blockdev-add disk2-333333330000400080000000",
      "blockdev-del disk1-333333330000400080000000",
    ]);
  });

  it("are frozen at one stop only", () => {
    const disks = new EmulatorDisks(async () => ({}));
    assert.equal(disks.takePending(), undefined);
    disks.freezeAtStop([freeze]);
    assert.notEqual(disks.takePending(), undefined);
    assert.equal(disks.takePending(), undefined);
    disks.freezeAtStop([freeze]);
    disks.forget();
    assert.equal(disks.takePending(), undefined);
  });

  it("are limited by what has them, which is a part of the card", async () => {
    const sent: [string, unknown][] = [];
    const disks = new EmulatorDisks(async (command, args) => void sent.push([command, args]));
    await disks.limit([disk, { ...disk, name: "disk2", iops: 100 }]);
    const none = { bps_rd: 0, bps_wr: 0, iops_rd: 0, iops_wr: 0 };
    const id = "/machine/peripheral/disk2/virtio-backend";
    assert.deepEqual(sent, [["block_set_io_throttle", { id, bps: 0, iops: 100, ...none }]]);
  });

  it("are told by their devices, and an answer that names one of them not is none", () => {
    const answer = [
      { device: "", qdev: "/machine/peripheral/disk0/virtio-backend", inserted: { "node-name": "disk0-a" } },
      { device: "", qdev: "/machine/peripheral/disk1/virtio-backend", inserted: { "node-name": "disk1-b" } },
    ];
    assert.deepEqual(topNodes(answer, [disk]), new Map([["disk1", "disk1-b"]]));
    assert.equal(topNodes(answer, [{ ...disk, name: "disk2" }]), undefined);
    assert.equal(topNodes({}, [disk]), undefined);
  });
});
