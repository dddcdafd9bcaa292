import assert from "node:assert/strict";
import { Duplex } from "node:stream";
import { GuestError, MAX_QMP_LINE_BYTES, parseGuestConfig } from "../../../src/guest/index.js";
import { machineOf, StateWriter, writeDevices, writeStart } from "../../../src/guest/device-state.js";
import {
  blocksToCarry,
  candidatesFor,
  kindOf,
  parseBlockList,
  parsePlace,
} from "../../../src/guest/memory-blocks.js";
import { QmpClient } from "../../../src/guest/qmp.js";
import { loadOutcomeOf, statusOf } from "../../../src/guest/run-state.js";
import { GREETING } from "../../support/fake-qmp.js";
import { ManualClock } from "../../unit/control/support.js";
import { orRefusal, refusalOf, type Target } from "../engine/target.js";
import { BLOCK_LISTS, GUESTS, MAPS, savedState } from "./guest-samples.js";

const SMALL_BYTES = 1024 * 1024;
const allocationBytes = (inputBytes: number) => SMALL_BYTES + inputBytes * 256;

/** The emulator's end of a control connection, in memory. */
class EmulatorEnd extends Duplex {
  override _read(): void {}
  override _write(_chunk: unknown, _encoding: string, done: () => void): void {
    done();
  }
}

function lines(...messages: object[]): string {
  return messages.map((message) => `${JSON.stringify(message)}\r\n`).join("");
}

const NEGOTIATED = { return: {}, id: 1 };
const STOPPED = { event: "STOP", timestamp: { seconds: 1_700_000_000, microseconds: 5 } };

/** Between what an emulator says at once and what it says a turn later. */
const PAUSE = "\u0001";

/** What an emulator says on its control connection; after a good greeting and negotiation, when the first byte is odd. */
export const guestQmp: Target = {
  name: "guest-qmp",
  covers: ["src/guest/qmp.ts", "src/guest/run-state.ts"],
  format: "text",
  maxInputBytes: 8192,
  // The emulator may take its time over a line; what is kept of it is bounded.
  allocationBytes: (inputBytes) => allocationBytes(inputBytes) + 2 * MAX_QMP_LINE_BYTES,
  *seeds() {
    yield Buffer.from(`1${lines(STOPPED, { return: { status: "running", running: true }, id: 2 })}`);
    const answers = [
      { return: { status: "paused" }, id: 2 },
      { return: "text", id: 3 },
    ].map((answer) => lines(answer));
    yield Buffer.from(`2${[lines(GREETING), lines(NEGOTIATED), ...answers].join(PAUSE)}`);
    yield Buffer.from(`1${answers.join(PAUSE)}`);
    yield Buffer.from(`1${lines({ id: 2, error: { class: "GenericError", desc: "no" } }, STOPPED)}`);
    yield Buffer.from(
      `3${lines({ event: "MIGRATION", data: { status: "completed" }, timestamp: { seconds: -1, microseconds: -1 } })}`,
    );
    yield Buffer.from(`1{"return": {}, "id": 3}\n{"return`);
  },
  run: qmp,
};

async function qmp(input: Buffer): Promise<string> {
  const choice = input[0] ?? 0;
  const end = new EmulatorEnd();
  const outcomes: string[] = [];
  const connected = QmpClient.over(end, {
    clock: new ManualClock(),
    deadlineMs: 1000,
    onEvent: ({ name, data, atUs }) => {
      assert.ok(Number.isFinite(atUs));
      outcomes.push(`event ${name.length > 16} ${loadOutcomeOf(data)}`);
    },
    onEnd: (reason) => outcomes.push(`end ${reason.code}`),
  });
  const told = connected.then(
    (client) => ask(client, outcomes),
    (error: unknown) => void outcomes.push(refusalOf(GuestError, error)),
  );
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const said = input.subarray(1).toString("latin1").split(PAUSE).slice(0, 4);
  if ((choice & 1) === 1) said.unshift(lines(GREETING), lines(NEGOTIATED));
  for (const text of said) {
    if (text !== "") end.push(Buffer.from(text, "latin1"));
    await turn();
  }
  end.push(null);
  await turn();
  end.destroy();
  await told;
  return outcomes.slice(0, 4).join();
}

async function ask(client: QmpClient, outcomes: string[]): Promise<void> {
  try {
    outcomes.push(statusOf(await client.execute("query-status")));
    await client.executeHuman("info ramblock");
    outcomes.push("text");
  } catch (error) {
    outcomes.push(refusalOf(GuestError, error));
  } finally {
    client.close();
  }
}

/** Answers of the human monitor, and the kernel's list of an emulator's mappings. */
export const guestMemoryBlocks: Target = {
  name: "guest-blocks",
  covers: ["src/guest/memory-blocks.ts"],
  format: "text",
  maxInputBytes: 4096,
  allocationBytes,
  *seeds() {
    for (const list of BLOCK_LISTS) yield Buffer.from(list);
    yield Buffer.from(MAPS);
    yield Buffer.from("Host virtual address for 0x0 (virt.flash0) is 0x7f1ae5000000");
  },
  run(input) {
    const text = input.toString("utf8");
    const block = { name: "virt.flash0", usedBytes: 0x200000, totalBytes: 0x200000 };
    const place = parsePlace(block, text);
    assert.ok(place === undefined || place >= 0);
    const candidates = candidatesFor(block, text).length;
    return orRefusal(GuestError, () => {
      const kinds = blocksToCarry(parseBlockList(text)).map((found) => {
        assert.ok(found.usedBytes >= 0 && found.totalBytes >= 0);
        return kindOf(found.name);
      });
      return `${place !== undefined} ${candidates} ${[...new Set(kinds)].sort().join()}`;
    });
  },
};

/** A device state as an emulator saved it, and as a peer sends it. */
export const guestDeviceState: Target = {
  name: "guest-device-state",
  covers: ["src/guest/device-state.ts"],
  format: "bytes",
  maxInputBytes: 8192,
  allocationBytes,
  *seeds() {
    yield savedState("timer");
    yield savedState("timer", "slirp", "serial");
    yield savedState("slirp");
    for (const architecture of ["x86_64", "aarch64"] as const) {
      const writer = new StateWriter(64);
      writeStart(writer, { machine: architecture === "x86_64" ? "pc-q35-7.2" : "virt-7.2", architecture });
      yield Buffer.from(writer.finish());
    }
  },
  run(input) {
    const machine = orRefusal(GuestError, () => {
      const name = machineOf(input);
      assert.ok(name.length >= 1 && name.length <= 255 && name.length < input.length);
      return "machine";
    });
    const devices = orRefusal(GuestError, () => {
      const writer = new StateWriter(64);
      writeDevices(writer, input);
      assert.ok(writer.length <= input.length);
      return writer.length === input.length - 8 ? "whole" : "cut";
    });
    return `${machine} ${devices}`;
  },
};

/** A guest's configuration, from a record or a command. */
export const guestConfig: Target = {
  name: "guest-config",
  covers: ["src/guest/config.ts"],
  format: "json",
  maxInputBytes: 8192,
  allocationBytes,
  *seeds() {
    for (const guest of GUESTS) yield Buffer.from(JSON.stringify(guest));
  },
  run(input) {
    let value: unknown;
    try {
      value = JSON.parse(input.toString("utf8"));
    } catch {
      return "no JSON";
    }
    return orRefusal(GuestError, () => {
      const config = parseGuestConfig(value);
      const again = parseGuestConfig(JSON.parse(JSON.stringify(config)));
      assert.deepEqual(again, config, "a configuration written and read is the same");
      return `${config.architecture} ${config.network.mode}`;
    });
  },
};
