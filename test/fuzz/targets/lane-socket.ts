import assert from "node:assert/strict";
import { connect } from "node:net";
import { join } from "node:path";
import { realClock, silentLog } from "../../../src/base/index.js";
import { Listener } from "../../../src/lane/index.js";
import { encodeMessage, NONCE_BYTES } from "../../../src/lane/messages.js";
import type { Target } from "../engine/target.js";
import { scratchDirectory } from "./scratch.js";

/** How long an answer may take on a machine that does nothing else; then the client hangs up and the next input is tried. */
const PATIENCE_MS = 100;

/** Most bytes a listener may say to one client of this target: a few short answers. */
const MAX_ANSWER_BYTES = 64 * 1024;

function upgrade(path: string): string {
  return [
    `GET ${path} HTTP/1.1`,
    "Host: a",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol: ramet.v1",
    "\r\n",
  ].join("\r\n");
}

/** A WebSocket frame as clients send it, under a mask of zeros, so that mutations see the content (RFC 6455, 5.2). */
function frame(opcode: number, payload: Uint8Array): Buffer {
  const long = payload.length > 125;
  const head = Buffer.alloc(long ? 8 : 6);
  head.writeUInt8(0x80 | opcode, 0);
  head.writeUInt8(0x80 | (long ? 126 : payload.length), 1);
  if (long) head.writeUInt16BE(payload.length, 2);
  return Buffer.concat([head, payload]);
}

const BINARY = 2;
const CLOSE = 8;
const PING = 9;

function* conversations(): Iterable<Uint8Array> {
  const common = { versions: [1], features: ["lz4"], nonce: Buffer.alloc(NONCE_BYTES, 7) };
  const ofTransfer = { transfer: 7, epoch: 1, token: "abcdefghijklmnop" };
  const hellos = [
    encodeMessage({ type: "hello", ...common, purpose: "control", role: "client" }),
    encodeMessage({ type: "hello", ...common, ...ofTransfer, purpose: "urgent", role: "peer" }),
  ] as const;
  const proof = frame(BINARY, encodeMessage({ type: "proof", proof: Buffer.alloc(0) }));
  const rest = [
    frame(BINARY, Buffer.from("content")),
    frame(PING, Buffer.from("p")),
    frame(CLOSE, Buffer.from("\x0f\xa1a: b", "latin1")),
  ];
  for (const [index, path] of ["/v1/control", "/v1/lane"].entries()) {
    const head = Buffer.from(upgrade(path));
    yield head;
    yield Buffer.concat([head, frame(BINARY, hellos[index] ?? hellos[0]), proof, ...rest]);
  }
  yield Buffer.from("GET / HTTP/1.0\r\n\r\n");
  yield Buffer.from(upgrade("/v1/control").replace("Host: a", "Host: a\r\nOrigin: b"));
}

let listening: Promise<Listener> | undefined;
let frames = 0;

const socketPath = () => join(scratchDirectory(), "lane.sock");

function listen(): Promise<Listener> {
  return Listener.open({
    address: { path: socketPath() },
    clock: realClock,
    log: silentLog,
    onConnection: (connection) =>
      connection.attach({ onFrame: (bytes) => (frames += bytes.length > 0 ? 1 : 0), onEnd: () => {} }),
  });
}

/** Says all of an input, hangs up, and gives what was answered. */
async function converse(path: string, input: Buffer): Promise<Buffer> {
  const answers: Buffer[] = [];
  const socket = connect(path);
  await new Promise<void>((resolve) => {
    const patience = realClock.after(PATIENCE_MS, () => socket.destroy());
    socket.on("data", (chunk) => answers.push(chunk));
    socket.on("error", () => {});
    socket.once("close", () => {
      patience.cancel();
      resolve();
    });
    socket.end(input);
  });
  return Buffer.concat(answers);
}

/** Whole conversations with a listener: HTTP, WebSocket, handshake, frames. */
export const laneSocket: Target = {
  name: "lane-socket",
  covers: ["src/lane/listener.ts", "src/lane/gate.ts", "src/lane/connection.ts", "src/lane/handshake.ts"],
  format: "bytes",
  maxInputBytes: 4096,
  // The process meanwhile lets go of earlier connections.
  allocationBytes: () => 16 * 1024 * 1024,
  seeds: conversations,
  close: async () => (await listening)?.close(),
  async run(input) {
    await (listening ??= listen());
    frames = 0;
    const answer = await converse(socketPath(), input);
    assert.ok(answer.length <= MAX_ANSWER_BYTES, `${answer.length} bytes were answered`);
    const status = /^HTTP\/1.1 ([0-9]{3})/.exec(answer.toString("latin1"))?.[1] ?? "nothing";
    const refusal = /\xa4code[\xa0-\xbf]([a-z-]+)/.exec(answer.toString("latin1"))?.[1] ?? "";
    return `${status} ${refusal} ${Math.min(frames, 3)}`;
  },
};
