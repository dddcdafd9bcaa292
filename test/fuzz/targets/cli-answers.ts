import assert from "node:assert/strict";
import { MAX_CONTROL_BYTES } from "../../../src/base/index.js";
import type { Environment } from "../../../src/cli/environment.js";
import { runCli } from "../../../src/cli/run-cli.js";
import { decodeMessage, encodeMessage, type MessageChannel } from "../../../src/control/index.js";
import { FakeInput, FakeOutput, NO_AUTHORITIES } from "../../unit/cli/support.js";
import { channelPair, GUEST, ManualClock, TRANSFER } from "../../unit/control/support.js";
import type { Target } from "../engine/target.js";

const LIMITS = { maxBytes: MAX_CONTROL_BYTES, maxValues: 1000 };

/** Commands that show what an agent tells. */
const COMMANDS: readonly (readonly string[])[] = [
  ["list"],
  ["show", "web"],
  ["fork", "web"],
  ["migrate", "web", "b"],
  ["transfers"],
  ["watch", "7"],
  ["peers"],
  ["ping", "b"],
  ["warm", "web"],
  ["logs", "web", "--follow"],
  ["version"],
  ["stop", "web"],
  ["cancel", "7"],
];

/** An input: which command, what every call is answered, and what is told unasked after the first answer. */
interface Scene {
  command?: unknown;
  result?: unknown;
  events?: unknown;
}

const OUTCOME = {
  transfer: 7,
  guest: "web-1",
  host: "b",
  state: "running",
  pauseUs: 900,
  pauseParts: { stopUs: 200 },
};
const COMPLETE = { ...TRANSFER, phase: "complete", verify: { checked: 5, mismatches: 0 }, message: "done" };

const SCENES: readonly (Scene & { command: number })[] = [
  {
    command: 0,
    result: {
      guests: [
        GUEST,
        { ...GUEST, name: "b", message: "why", parent: { guest: "a", host: "b", transfer: 1 } },
      ],
    },
  },
  {
    command: 1,
    result: { guest: { ...GUEST, initrd: "/i", pid: 5, emulatorVersion: "7.2", message: "why" } },
  },
  {
    command: 2,
    result: { transfers: [OUTCOME] },
    events: [{ event: "transfer", data: { transfer: COMPLETE } }],
  },
  {
    command: 3,
    result: {
      transfers: [{ ...OUTCOME, state: "failed", error: { code: "x", message: "y" } }],
      transfer: TRANSFER,
    },
    events: [
      {
        event: "transfer",
        data: { transfer: { ...TRANSFER, id: 7, reconnects: 2, copies: { pages: 1, budgetPages: 2 } } },
      },
    ],
  },
  { command: 4, result: { transfers: [TRANSFER, COMPLETE] } },
  {
    command: 5,
    result: { transfer: TRANSFER, transfers: [TRANSFER], topics: [] },
    events: [{ event: "transfer", data: { transfer: COMPLETE } }],
  },
  {
    command: 6,
    result: {
      peers: [
        {
          address: "b:1",
          name: "b",
          state: "idle",
          version: "1",
          roundTripUs: 5.5,
          transfers: 0,
          message: "m",
        },
      ],
    },
  },
  { command: 7, result: { address: "b:1", name: "b", version: "1", roundTripsUs: [1.5, 2] } },
  { command: 8, result: { warm: [{ host: "b", count: 2 }] } },
  {
    command: 9,
    result: { lines: ["a", "\u001b[31mred"] },
    events: [{ event: "log", data: { guest: "web", lines: ["later"] } }],
  },
  {
    command: 10,
    result: {
      ...{
        name: "a",
        version: "1",
        apiVersion: 1,
        pid: 5,
        kernel: "6.1",
        startedAtMs: 5,
        addresses: ["unix:/x"],
        guests: 1,
        transfers: 0,
      },
      emulators: [{ architecture: "x86_64", version: "7.2", machine: "pc-q35-7.2", accelerator: "tcg" }],
      memory: { totalBytes: 5, availableBytes: 4 },
    },
  },
  { command: 11, result: { guest: { ...GUEST, state: "stopped" } } },
  {
    command: 12,
    result: { transfer: { ...TRANSFER, phase: "cancelled", error: { code: "cancelled", message: "m" } } },
  },
];

/** The agent's end: answers every call alike. */
function answerAll(far: MessageChannel, { result, events }: Scene): void {
  let told = false;
  far.attach({
    onEnd: () => {},
    onFrame: (bytes) => {
      const { id } = decodeMessage(bytes, LIMITS);
      far.send(encodeMessage({ id, result }));
      if (told || !Array.isArray(events)) return;
      told = true;
      for (const event of events.slice(0, 8)) {
        if (typeof event === "object" && event !== null) far.send(encodeMessage(event as object));
      }
    },
  });
}

function environmentOf(scene: Scene, onInterrupt: (handler: () => void) => void) {
  const [stdout, stderr] = [new FakeOutput(), new FakeOutput()];
  const environment: Environment = {
    ...{ variables: {}, stdin: new FakeInput(), stdout, stderr, clock: new ManualClock(), version: "1" },
    authorities: NO_AUTHORITIES,
    dial: () => {
      const { near, far } = channelPair();
      answerAll(far, scene);
      return Promise.resolve(near);
    },
    onInterrupt: (handler) => {
      onInterrupt(handler);
      return () => {};
    },
  };
  return { environment, stdout, stderr };
}

/** What commands print of an agent's answers and events: nothing that would steer a terminal, and no mistake of ours. */
export const cliAnswers: Target = {
  name: "cli-answers",
  covers: [
    "src/cli/commands/",
    "src/cli/format/",
    "src/cli/transfer-follower.ts",
    "src/cli/transfer-display.ts",
  ],
  format: "msgpack",
  maxInputBytes: 4096,
  allocationBytes: (inputBytes) => 8 * 1024 * 1024 + inputBytes * 512,
  *seeds() {
    for (const scene of SCENES) yield encodeMessage(scene);
  },
  async run(input) {
    let scene: Scene;
    try {
      scene = decodeMessage(input, LIMITS);
    } catch {
      return "no scene";
    }
    const index =
      typeof scene.command === "number" ? Math.floor(Math.abs(scene.command)) % COMMANDS.length : 0;
    const command = COMMANDS[index] ?? ["list"];
    let interrupt = () => {};
    const { environment, stdout, stderr } = environmentOf(scene, (handler) => (interrupt = handler));
    const running = runCli(command, environment);
    for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    interrupt();
    const code = await running;
    const printed = stdout.text + stderr.text;
    assert.doesNotMatch(
      printed,
      /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/,
      "what is printed steers no terminal",
    );
    assert.doesNotMatch(
      printed,
      /undefined|\[object|NaN|is not a function|Cannot read/,
      printed.slice(0, 300),
    );
    return `${command[0]} ${code} ${Math.min(8, stdout.text.split("\n").length)}`;
  },
};
