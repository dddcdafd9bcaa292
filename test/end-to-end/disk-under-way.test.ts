import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { realClock, silentLog, sleep } from "../../src/base/index.js";
import { FillingDisk, FillingNotes, NbdServer } from "../../src/disk/index.js";
import { findData } from "../../src/memory/index.js";
import { ArraySource } from "../support/block-sources.js";

const MIB = 1024 * 1024;

interface Answer {
  return?: unknown;
  error?: { desc: string };
}

/** An emulator without a guest: its block layer is what is tried. */
class BareEmulator {
  readonly #process: ChildProcess;
  readonly #socket: Socket;
  readonly #lines: Interface;
  readonly #answers: Answer[] = [];
  #wake: () => void = () => {};

  private constructor(process: ChildProcess, socket: Socket) {
    this.#process = process;
    this.#socket = socket;
    this.#lines = createInterface(socket);
    this.#lines.on("line", (line) => {
      const message = JSON.parse(line) as Answer;
      if ("return" in message || "error" in message) this.#answers.push(message);
      this.#wake();
    });
  }

  static async start(path: string): Promise<BareEmulator> {
    const qmp = `unix:${path},server=on,wait=off`;
    const process = spawn("qemu-system-x86_64", [
      "-M",
      "none",
      "-display",
      "none",
      "-nodefaults",
      "-qmp",
      qmp,
    ]);
    for (;;) {
      const socket = connect({ path });
      const connected = await Promise.race([
        once(socket, "connect").then(() => true),
        once(socket, "error").then(() => false),
      ]).catch(() => false);
      if (!connected) {
        await sleep(realClock, 20);
        continue;
      }
      const emulator = new BareEmulator(process, socket);
      await emulator.execute("qmp_capabilities", {});
      return emulator;
    }
  }

  async execute(command: string, parameters: object): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: parameters })}\n`);
    while (this.#answers.length === 0) await new Promise<void>((resolve) => (this.#wake = resolve));
    const answer = this.#answers.shift();
    if (answer?.error !== undefined) throw new Error(answer.error.desc);
    return answer?.return;
  }

  /** Reads as a guest would, and compares with a pattern. What is wrong is told. */
  io(node: string, command: string): Promise<unknown> {
    return this.execute("human-monitor-command", { "command-line": `qemu-io ${node} "${command}"` });
  }

  async end(): Promise<void> {
    const exited = once(this.#process, "exit");
    this.#socket.destroy();
    this.#process.kill("SIGKILL");
    await exited;
  }
}

describe("a differencing disk whose file is still on its way", () => {
  let directory: string;
  let emulator: BareEmulator;
  const at = (name: string): string => join(directory, name);
  const run = (program: string, ...args: string[]): void =>
    void execFileSync(program, args, { stdio: "pipe" });

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "ramet-way-"));
    run("qemu-img", "create", "-q", "-f", "raw", at("base.raw"), "64M");
    run("qemu-io", "-f", "raw", "-c", "write -P 0x11 0 32M", at("base.raw"));
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", at("base.raw"), "-F", "raw", at("layer.qcow2"));
    run(
      "qemu-io",
      "-f",
      "qcow2",
      "-c",
      "write -P 0xaa 1M 4M",
      "-c",
      "write -P 0xbb 50M 64k",
      at("layer.qcow2"),
    );
    run("qemu-img", "create", "-q", "-f", "qcow2", at("top.qcow2"), "64M");
    emulator = await BareEmulator.start(at("qmp.sock"));
  });
  after(async () => {
    await emulator.end();
    rmSync(directory, { recursive: true });
  });

  test("is used at once, outlives its server, and is local in the end without having been streamed", async () => {
    const file = readFileSync(at("layer.qcow2"));
    assert.ok(file.length < 6 * MIB, "the file holds the differences and nothing else");
    const [urgent, bulk] = [new ArraySource(file), new ArraySource(file)];
    let sweep: () => void = () => {};
    const held = new Promise<void>((resolve) => (sweep = resolve));
    bulk.before = () => held;
    const filling = at("filling");
    await FillingNotes.create(filling, { sizeBytes: file.length });
    const disk = await FillingDisk.open(filling, { clock: realClock, findData });
    assert.ok(disk !== undefined);
    disk.attach({ urgent, bulk });
    const serve = () =>
      NbdServer.open({ path: at("disk.sock"), source: disk, clock: realClock, log: silentLog });
    const first = await serve();

    const add = (options: object) => emulator.execute("blockdev-add", options);
    const local = (name: string) => ({ driver: "file", filename: at(name) });
    await add({ "node-name": "base", driver: "raw", "read-only": true, file: { ...local("base.raw") } });
    const server = { type: "unix", path: at("disk.sock") };
    await add({ "node-name": "remote", driver: "nbd", "read-only": true, "reconnect-delay": 3600, server });
    const layer = { "node-name": "layer", driver: "qcow2", "read-only": true, backing: "base" };
    await add({ ...layer, file: "remote" });
    await add({ "node-name": "top", driver: "qcow2", file: local("top.qcow2"), backing: "layer" });

    const reads = async (pattern: string, range: string): Promise<void> => {
      assert.equal(await emulator.io("top", `read -q -P ${pattern} ${range}`), "", `${pattern} at ${range}`);
    };
    await reads("0xaa", "1M 64k");
    await reads("0x11", "8M 64k");
    await emulator.io("top", "write -q -P 0xcc 2M 64k");
    const asked = urgent.reads.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    assert.ok(asked < MIB, `${asked} bytes were asked for before it could be used`);

    await first.close();
    const waiting = reads("0xbb", "50M 64k");
    await sleep(realClock, 500);
    const second = await serve();
    await waiting;

    sweep();
    await disk.whole;
    await add({ "node-name": "here", "read-only": true, ...local("filling/disk.raw") });
    await emulator.execute("blockdev-reopen", { options: [{ ...layer, file: "here" }] });
    await emulator.execute("blockdev-del", { "node-name": "remote" });
    await second.close();
    await disk.close();
    await reads("0xaa", "3M 1M");
    await reads("0xcc", "2M 64k");
    await reads("0xbb", "50M 64k");
    await reads("0x11", "8M 1M");
  });
});
