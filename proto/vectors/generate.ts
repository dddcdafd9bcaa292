/** Makes the vectors of version 1. They are frozen: run it only to add some, and look at the difference. */
import { writeFileSync } from "node:fs";
import { ClientHandshake, ServerHandshake } from "../../src/lane/handshake.js";
import { clientMessage, decodeMessage, serverMessage } from "../../src/lane/messages.js";
import { encodeEnd } from "../../src/lane/end.js";
import { ROUTES } from "../../src/lane/purpose.js";
import { encodeFrame, packRun, unpackRun, type Frame } from "../../src/wire/index.js";
import { partsOf } from "./bytes.js";
import type { EndVector, FrameVector, HandshakeVector, RefusedVector, VectorFrame } from "./schema.js";

const at = { transfer: 0x01020304, sequence: 5 };
const pageCount = 1000;
const page = (text: string, pages = 1) => Buffer.alloc(4096 * pages, text);
const counting = Uint8Array.from({ length: 4096 }, (_, index) => (index * 7 + (index >> 8)) & 0xff);
const sequences = (length: number) => Uint8Array.from({ length }, (_, index) => index & 0xff);

const frames: { name: string; encode?: boolean; sequence?: number; frame: Frame }[] = [
  {
    name: "one raw page, asked for",
    frame: {
      kind: "pages",
      runs: [packRun({ firstPage: 7, origin: "fault", bytes: page("ramet---"), compress: false })],
    },
  },
  {
    name: "zero pages, as many as memory has",
    frame: {
      kind: "pages",
      runs: [{ firstPage: 0, pageCount, encoding: "zero", origin: "sweep", data: new Uint8Array(0) }],
    },
  },
  {
    name: "sixteen compressed pages",
    encode: false,
    frame: {
      kind: "pages",
      runs: [packRun({ firstPage: 16, origin: "sweep", bytes: page("sixteen!", 16), compress: true })],
    },
  },
  {
    name: "raw, zero and compressed runs in one frame, not in order",
    encode: false,
    frame: {
      kind: "pages",
      runs: [
        packRun({ firstPage: 999, origin: "push", bytes: counting, compress: false }),
        packRun({ firstPage: 3, origin: "push", bytes: new Uint8Array(8192), compress: false }),
        packRun({ firstPage: 500, origin: "sweep", bytes: page("lz4.", 2), compress: true }),
      ],
    },
  },
  { name: "a request", frame: { kind: "request", pages: [0, 999, 5] } },
  { name: "credit alone", frame: { kind: "received", creditBytes: 65600, runs: [] } },
  {
    name: "credit and pages",
    frame: {
      kind: "received",
      creditBytes: 4194304,
      runs: [
        { first: 0, count: 1000 },
        { first: 7, count: 1 },
      ],
    },
  },
  { name: "a new child has nothing", sequence: 1, frame: { kind: "have", last: true, runs: [] } },
  {
    name: "more to come",
    sequence: 1,
    frame: { kind: "have", last: false, runs: [{ first: 10, count: 20 }] },
  },
  { name: "two digests", frame: { kind: "hashes", firstPage: 998, digests: sequences(32) } },
  { name: "done", sequence: 2 ** 48 - 1, frame: { kind: "done" } },
  { name: "another child passes on to this one", frame: { kind: "relayed", on: true } },
  { name: "no other child passes on to this one", frame: { kind: "relayed", on: false } },
];

function vectorFrame(frame: Frame): VectorFrame {
  if (frame.kind === "hashes") return { ...frame, digests: partsOf(frame.digests) };
  if (frame.kind !== "pages") return frame;
  const runs = frame.runs.map(({ data, ...run }) => ({
    ...run,
    content: run.encoding === "zero" ? [] : partsOf(unpackRun({ ...run, data })),
  }));
  return { kind: "pages", runs };
}

const frameVectors: FrameVector[] = frames.map(({ name, encode = true, sequence = at.sequence, frame }) => ({
  name,
  transfer: at.transfer,
  sequence,
  pageCount,
  encode,
  frame: vectorFrame(frame),
  bytes: partsOf(encodeFrame(frame, { transfer: at.transfer, sequence })),
}));

/** A good frame with some bytes put over it. */
function spoilt(frame: Frame, changes: [number, string][], cutTo?: number): Buffer {
  const bytes = encodeFrame(frame, at);
  for (const [offset, hex] of changes) bytes.set(Buffer.from(hex, "hex"), offset);
  return bytes.subarray(0, cutTo);
}
const zeroRun: Frame = {
  kind: "pages",
  runs: [{ firstPage: 1, pageCount: 2, encoding: "zero", origin: "sweep", data: new Uint8Array(0) }],
};
const request: Frame = { kind: "request", pages: [1, 2] };
const received: Frame = { kind: "received", creditBytes: 1, runs: [{ first: 1, count: 2 }] };
const have: Frame = { kind: "have", last: true, runs: [{ first: 1, count: 2 }] };
const hashes: Frame = { kind: "hashes", firstPage: 998, digests: sequences(32) };
const done: Frame = { kind: "done" };

const refused: [string, Buffer, string][] = [
  ["nothing at all", Buffer.alloc(0), "short-frame"],
  ["a header cut short", spoilt(done, [], 15), "short-frame"],
  ["kind 0", spoilt(done, [[0, "00"]]), "unknown-kind"],
  ["kind 7", spoilt(done, [[0, "07"]]), "unknown-kind"],
  ["another transfer", spoilt(done, [[8, "01020305"]]), "wrong-transfer"],
  ["a frame again", spoilt(done, [[2, "000000000004"]]), "bad-sequence"],
  ["a frame left out", spoilt(done, [[2, "000000000006"]]), "bad-sequence"],
  ["a body length of 4 GiB", spoilt(done, [[12, "ffffffff"]]), "bad-length"],
  ["a body that is missing", spoilt(done, [[12, "00000001"]]), "bad-length"],
  ["a byte after the body", Buffer.concat([spoilt(done, []), Buffer.alloc(1)]), "bad-length"],
  ["done with a body", Buffer.concat([spoilt(done, [[12, "00000001"]]), Buffer.alloc(1)]), "bad-length"],
  ["a flag that done does not have", spoilt(done, [[1, "01"]]), "bad-flags"],
  ["a flag that relayed does not have", spoilt(done, [[0, "0802"]]), "bad-flags"],
  ["a flag that have does not have", spoilt(have, [[1, "03"]]), "bad-flags"],
  ["no runs", spoilt(zeroRun, [[16, "0000"]]), "bad-count"],
  ["257 runs", spoilt(zeroRun, [[16, "0101"]]), "bad-count"],
  ["more runs than there are descriptors", spoilt(zeroRun, [[16, "0002"]]), "bad-length"],
  ["reserved bytes of pages", spoilt(zeroRun, [[18, "0001"]]), "bad-reserved"],
  ["reserved bytes of a run", spoilt(zeroRun, [[30, "0001"]]), "bad-reserved"],
  ["a run of no pages", spoilt(zeroRun, [[24, "00000000"]]), "bad-run"],
  ["a run that leaves memory", spoilt(zeroRun, [[20, "000003e7"]]), "page-out-of-range"],
  [
    "a run that would overflow 32 bits",
    spoilt(zeroRun, [
      [20, "ffffffff"],
      [24, "ffffffff"],
    ]),
    "page-out-of-range",
  ],
  ["encoding 0", spoilt(zeroRun, [[28, "00"]]), "bad-run"],
  ["encoding 4", spoilt(zeroRun, [[28, "04"]]), "bad-run"],
  ["origin 0", spoilt(zeroRun, [[29, "00"]]), "bad-run"],
  ["zero pages with data", spoilt(zeroRun, [[32, "00000001"]]), "bad-run"],
  ["raw pages without data", spoilt(zeroRun, [[28, "01"]]), "bad-run"],
  [
    "raw data that is missing",
    spoilt(zeroRun, [
      [28, "01"],
      [32, "00002000"],
    ]),
    "bad-length",
  ],
  [
    "raw pages beyond 64",
    spoilt(zeroRun, [
      [20, "00000000"],
      [24, "00000041"],
      [28, "01"],
      [32, "00041000"],
    ]),
    "bad-run",
  ],
  [
    "compressed data without content",
    spoilt(zeroRun, [
      [28, "02"],
      [32, "00000004"],
    ]),
    "bad-run",
  ],
  [
    "compressed data as long as raw",
    spoilt(zeroRun, [
      [28, "02"],
      [32, "00002000"],
    ]),
    "bad-run",
  ],
  ["a request for nothing", spoilt(request, [[16, "0000"]]), "bad-count"],
  ["a request for 513 pages", spoilt(request, [[16, "0201"]]), "bad-count"],
  ["a request with a page too few", spoilt(request, [[16, "0003"]]), "bad-length"],
  ["a request with a page too many", spoilt(request, [[16, "0001"]]), "bad-length"],
  ["a request outside of memory", spoilt(request, [[20, "000003e8"]]), "page-out-of-range"],
  ["reserved bytes of a request", spoilt(request, [[18, "8000"]]), "bad-reserved"],
  ["more credit than the window", spoilt(received, [[16, "00400001"]]), "bad-credit"],
  ["4097 runs received", spoilt(received, [[20, "1001"]]), "bad-count"],
  ["reserved bytes of received", spoilt(received, [[22, "0001"]]), "bad-reserved"],
  ["an empty run received", spoilt(received, [[28, "00000000"]]), "bad-run"],
  ["a received run that leaves memory", spoilt(received, [[28, "000003e8"]]), "page-out-of-range"],
  ["reserved bytes of have", spoilt(have, [[20, "00000001"]]), "bad-reserved"],
  ["a have with a run missing", spoilt(have, [[16, "0002"]]), "bad-length"],
  ["digests of 32 bytes", spoilt(hashes, [[22, "20"]]), "bad-length"],
  ["reserved byte of hashes", spoilt(hashes, [[23, "01"]]), "bad-reserved"],
  ["no digests", spoilt(hashes, [[20, "0000"]]), "bad-count"],
  ["digests outside of memory", spoilt(hashes, [[16, "000003e7"]]), "page-out-of-range"],
  [
    "a digest missing",
    spoilt(hashes, [
      [16, "00000000"],
      [20, "0003"],
    ]),
    "bad-length",
  ],
];
const refusedVectors: RefusedVector[] = refused.map(([name, bytes, error]) => ({
  name,
  ...at,
  pageCount,
  bytes: partsOf(bytes),
  error,
}));

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
function handshake(
  name: string,
  key: Buffer | undefined,
  hello: {
    purpose: "control" | "urgent" | "bulk";
    role: "client" | "peer";
    transfer?: number;
    epoch?: number;
    token?: string;
  },
): HandshakeVector {
  const clientNonce = Buffer.alloc(32, 0xc1);
  const serverNonce = Buffer.alloc(32, 0x5e);
  const client = new ClientHandshake({ fields: hello, key, nonce: clientNonce });
  const route = ROUTES[hello.purpose === "control" ? 0 : 1];
  if (route === undefined) throw new Error("no route");
  const server = new ServerHandshake({ route, key, authorise: () => {}, nonce: serverNonce });
  const challengeBytes = server.onMessage(client.helloBytes).reply as Buffer;
  const proofBytes = client.onMessage(challengeBytes).reply as Buffer;
  const challenge = decodeMessage(serverMessage.challenge, challengeBytes);
  if (challenge.type !== "challenge") throw new Error("refused");
  return {
    name,
    key: key === undefined ? "" : hex(key),
    hello,
    helloBytes: hex(client.helloBytes),
    challenge: { version: challenge.version, features: challenge.features, nonce: hex(challenge.nonce) },
    clientNonce: hex(clientNonce),
    serverProof: hex(challenge.proof),
    clientProof: hex(decodeMessage(clientMessage.proof, proofBytes).proof),
  };
}
const handshakeVectors = [
  handshake("control with a key", Buffer.from("a key of some length"), {
    purpose: "control",
    role: "client",
  }),
  handshake("a page lane with a key", Buffer.alloc(32, 0x4b), {
    purpose: "bulk",
    role: "peer",
    transfer: 0xfffffffe,
    epoch: 2,
    token: "a token",
  }),
  handshake("neither side has a key", undefined, {
    purpose: "urgent",
    role: "peer",
    transfer: 1,
    epoch: 1,
    token: "t",
  }),
];

const ends: { code: string; message: string; fatal: boolean }[] = [
  { code: "closed", message: "the agent is stopping", fatal: false },
  { code: "cancelled", message: "the transfer was cancelled by its user", fatal: true },
  { code: "bad-run", message: "ü".repeat(200), fatal: true },
];
const endVectors: EndVector[] = ends.map((end) => {
  const { closeCode, reason } = encodeEnd(end);
  const read = reason.toString("utf8").slice(end.code.length + 2);
  return { end, closeCode, reason: hex(reason), ...(read === end.message ? {} : { read }) };
});

for (const [name, vectors] of Object.entries({
  frames: frameVectors,
  refused: refusedVectors,
  handshake: handshakeVectors,
  ends: endVectors,
})) {
  const lines = vectors.map((vector) => `  ${JSON.stringify(vector)}`);
  writeFileSync(new URL(`v1/${name}.json`, import.meta.url), `[\n${lines.join(",\n")}\n]\n`);
}
