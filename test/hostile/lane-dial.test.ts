import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { Socket } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { realClock } from "../../src/base/index.js";
import { refusedMessage, ServerHandshake } from "../../src/lane/handshake.js";
import { dial, LaneError, type LaneErrorCode } from "../../src/lane/index.js";
import { ROUTES, type Route } from "../../src/lane/purpose.js";
import { ManualClock } from "../support/lane-clock.js";
import { KEY, PATIENCE_MS, settle, until, withDirectory } from "../support/lane-pair.js";
import { rawServer } from "../support/lane-raw.js";

const hello = { purpose: "bulk", role: "peer", transfer: 1, epoch: 1 } as const;

/** Dials with a clock whose timers can be counted: after a failure none may be left, nor any socket. */
async function fails(
  onSocket: (socket: Socket) => void,
  expected: { code: LaneErrorCode; fatal: boolean },
  key?: Buffer,
): Promise<void> {
  const clock = new ManualClock();
  const server = await rawServer(onSocket);
  await assert.rejects(dial({ url: server.url, hello, key, clock, deadlineMs: PATIENCE_MS }), (error) => {
    assert.ok(error instanceof LaneError, String(error));
    assert.deepEqual({ code: error.code, fatal: error.fatal }, expected, error.message);
    return true;
  });
  await until("the dialler's socket to close", () => server.sockets.size === 0);
  assert.equal(clock.pending, 0);
  await server.close();
}

/** Answers the upgrade; then `afterwards` says what it likes, in raw WebSocket frames. */
function upgrading(afterwards: (say: (payload: Buffer, opcode?: number) => void, socket: Socket) => void) {
  return (socket: Socket): void => {
    let head = "";
    const onData = (chunk: Buffer): void => {
      head += chunk.toString("latin1");
      if (!head.includes("\r\n\r\n")) return;
      socket.off("data", onData);
      const key = /sec-websocket-key: (.*)\r\n/iu.exec(head)?.[1] ?? "";
      const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
      socket.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
          `Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: ramet.v1\r\n\r\n`,
      );
      socket.resume();
      afterwards((payload, opcode = 2) => socket.write(frameOf(payload, opcode)), socket);
    };
    socket.on("data", onData);
  };
}

function frameOf(payload: Buffer, opcode: number): Buffer {
  if (payload.length < 126) return Buffer.concat([Buffer.from([0x80 | opcode, payload.length]), payload]);
  const head = Buffer.alloc(10);
  head[0] = 0x80 | opcode;
  head[1] = 127;
  head.writeUInt32BE(payload.length, 6);
  return Buffer.concat([head, payload]);
}

test("nobody there", async () => {
  const server = await rawServer(() => {});
  await server.close();
  const attempt = dial({ url: server.url, hello, clock: realClock, deadlineMs: PATIENCE_MS });
  await assert.rejects(attempt, { code: "unreachable", fatal: false });
  await withDirectory(async (directory) => {
    const url = `unix:${join(directory, "none.sock")}`;
    const unix = dial({ url, hello, clock: realClock, deadlineMs: PATIENCE_MS });
    await assert.rejects(unix, { code: "unreachable", fatal: false });
  });
});

test("silence, at every stage, ends with the deadline and leaves nothing", async () => {
  const stages: ((socket: Socket) => void)[] = [
    (socket) => socket.resume(),
    (socket) => void socket.resume().write("HTTP/1.1 101 Switch"),
    upgrading(() => {}),
    upgrading((_, socket) => socket.write(Buffer.from("82", "hex"))),
  ];
  for (const onSocket of stages) {
    const clock = new ManualClock();
    const server = await rawServer(onSocket);
    const attempt = dial({ url: server.url, hello, clock, deadlineMs: 5000 });
    const refused = assert.rejects(attempt, { code: "timeout", fatal: false });
    await until("the connection", () => server.sockets.size === 1);
    await settle();
    clock.advance(5000);
    await refused;
    await until("the dialler's socket to close", () => server.sockets.size === 0);
    assert.equal(clock.pending, 0);
    await server.close();
  }
});

test("servers that are no agents", async () => {
  const answer = (head: string) => (socket: Socket) => void socket.resume().write(`${head}\r\n\r\n`);
  await fails(answer("HTTP/1.1 200 OK\r\nContent-Length: 0"), { code: "refused", fatal: true });
  await fails(answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0"), { code: "refused", fatal: true });
  await fails(answer("HTTP/1.1 503 Busy\r\nContent-Length: 0"), { code: "unreachable", fatal: false });
  await fails(answer("HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/"), { code: "refused", fatal: true });
  await fails(answer("SSH-2.0-OpenSSH_9.2p1"), { code: "unreachable", fatal: false });
  const noProtocol = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade";
  await fails(answer(`${noProtocol}\r\nSec-WebSocket-Accept: AAAA`), { code: "unreachable", fatal: false });
  await fails((socket) => socket.destroy(), { code: "unreachable", fatal: false });
  await fails((socket) => socket.resetAndDestroy(), { code: "unreachable", fatal: false });
});

test("agents that break the handshake", async () => {
  await fails(
    upgrading((_, socket) => socket.destroy()),
    { code: "closed", fatal: false },
  );
  await fails(
    upgrading((_, socket) => socket.resetAndDestroy()),
    { code: "closed", fatal: false },
  );
  await fails(
    upgrading((say) => say(Buffer.from("hi"), 1)),
    { code: "bad-message", fatal: true },
  );
  await fails(
    upgrading((say) => say(Buffer.from("rubbish"))),
    { code: "bad-message", fatal: true },
  );
  await fails(
    upgrading((say) => say(Buffer.alloc(5000))),
    { code: "bad-message", fatal: true },
  );
  await fails(
    upgrading((say) => say(Buffer.alloc(0), 0xb)),
    { code: "bad-message", fatal: true },
  );
  await fails(
    upgrading((say) => say(Buffer.from("0fa1", "hex"), 8)),
    { code: "closed", fatal: true },
  );
});

test("an agent that floods the handshake is cut off, not collected", async () => {
  let sentBytes = 0;
  const flood = upgrading((_, socket) => {
    const head = Buffer.from("827f0000000000080000", "hex");
    socket.write(head);
    const more = (): void => {
      if (socket.destroyed || sentBytes > 64 * 1024 * 1024) return;
      sentBytes += 65536;
      socket.write(Buffer.alloc(65536), () => more());
    };
    more();
  });
  const clock = new ManualClock();
  const server = await rawServer(flood);
  const attempt = dial({ url: server.url, hello, clock, deadlineMs: PATIENCE_MS });
  await assert.rejects(attempt, (error) => error instanceof LaneError);
  await until("the dialler's socket to close", () => server.sockets.size === 0);
  await server.close();
});

test("a refusal says whether to dial again, and a false agent is found out", async () => {
  const route = ROUTES[1] as Route;
  const answering = (key: Buffer | undefined, last: Buffer) => (socket: Socket) => {
    upgrading((say) => {
      const handshake = new ServerHandshake({ route, key, authorise: () => {} });
      socket.once("data", (frame: Buffer) => {
        say(handshake.onMessage(unmasked(frame)).reply as Buffer);
        socket.once("data", () => say(last));
      });
    })(socket);
  };
  const no = refusedMessage(new LaneError("unknown-transfer", "it has ended"));
  const later = refusedMessage(new LaneError("closed", "not yet"));
  await fails(answering(undefined, no), { code: "unknown-transfer", fatal: true });
  await fails(answering(undefined, later), { code: "closed", fatal: false });
  await fails(answering(undefined, Buffer.from("rubbish")), { code: "bad-message", fatal: true });
  await fails(answering(undefined, later), { code: "unauthenticated", fatal: true }, KEY);
  await fails(
    answering(Buffer.from("a guess at the key"), later),
    { code: "unauthenticated", fatal: true },
    KEY,
  );
});

/** The payload of one masked frame of 126 to 65535 bytes. */
function unmasked(frame: Buffer): Buffer {
  const at = (frame[1] as number) === 0xfe ? 4 : 2;
  const mask = frame.subarray(at, at + 4);
  const payload = Buffer.from(frame.subarray(at + 4));
  return Buffer.from(payload.map((byte, index) => byte ^ (mask[index % 4] as number)));
}
