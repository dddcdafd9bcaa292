import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { LOCAL_IDENTITY, CodedError, MAX_CONTROL_BYTES, silentLog } from "../../../src/base/index.js";
import {
  ControlError,
  decodeMessage,
  encodeMessage,
  METHODS,
  RemoteError,
  RpcClient,
  RpcServerSession,
  type Handlers,
  type MethodName,
} from "../../../src/control/index.js";
import { channelPair, GUEST, ManualClock, TRANSFER } from "../../unit/control/support.js";
import { orRefusal, refusalOf, type Target } from "../engine/target.js";
import { PARAMS } from "./control-samples.js";

const SMALL_BYTES = 1024 * 1024;
const COVERS = ["src/control/", "node_modules/msgpackr/unpack.js"];

const allocationBytes = (inputBytes: number) => SMALL_BYTES + inputBytes * 256;

/** Words of a refusal without what it quotes: a rule broken for the first time is progress. */
function ruleOf(message: string): string {
  return message
    .replace(/"[^"]*"/g, "*")
    .replace(/[0-9]+/g, "#")
    .split(/ (?:is not a known|must|is missing|is not a method)/)
    .slice(-1)
    .join()
    .slice(0, 80);
}

function* requests(): Iterable<Uint8Array> {
  let id = 0;
  for (const [method, all] of Object.entries(PARAMS)) {
    for (const params of all) yield encodeMessage({ id: (id += 1), method, params });
  }
}

/** Any control message, before its meaning is looked at. */
export const controlMessage: Target = {
  name: "control-message",
  covers: ["src/control/codec.ts", "src/control/scan.ts", "node_modules/msgpackr/unpack.js"],
  format: "msgpack",
  maxInputBytes: 16 * 1024,
  seeds: requests,
  allocationBytes,
  run: (input) =>
    orRefusal(ControlError, () => {
      const message = decodeMessage(input, { maxBytes: MAX_CONTROL_BYTES, maxValues: 1000 });
      assert.equal(Object.getPrototypeOf(message), Object.prototype);
      const encoded = encodeMessage(message);
      const again = decodeMessage(encoded, { maxBytes: MAX_CONTROL_BYTES, maxValues: 1000 });
      assert.ok(isDeepStrictEqual(again, message), "a message encoded and decoded is the same message");
      return `map of ${Math.min(5, Object.keys(message).length)}`;
    }),
};

/** Which method's handler was called last, with checked parameters. */
let called = "";

class Declined extends CodedError<"declined"> {}

function handlersOf(role: "client" | "peer"): object {
  const names = (Object.keys(METHODS) as MethodName[]).filter((name) => METHODS[name].role === role);
  const decline = (name: string) => () => {
    called = name;
    return Promise.reject(new Declined("declined", "this is only a test"));
  };
  return Object.fromEntries(names.map((name) => [name, decline(name)]));
}

const HANDLERS = { client: handlersOf("client"), peer: handlersOf("peer") };

async function request(role: "client" | "peer", input: Buffer): Promise<string> {
  const { near, far } = channelPair();
  const options = { identity: LOCAL_IDENTITY, clock: new ManualClock(), log: silentLog };
  new RpcServerSession(
    far,
    role === "client"
      ? { role, handlers: HANDLERS.client as Handlers<"client">, ...options }
      : { role, handlers: HANDLERS.peer as Handlers<"peer">, ...options },
  );
  const replies: Record<string, unknown>[] = [];
  near.attach({
    onFrame: (bytes) => replies.push(decodeMessage(bytes, { maxBytes: MAX_CONTROL_BYTES, maxValues: 1000 })),
    onEnd: () => {},
  });
  called = "";
  near.send(input);
  // The answer takes a few turns of the queue of promises, and nothing else.
  for (let turn = 0; turn < 8 && replies.length === 0 && near.ended === undefined; turn += 1)
    await Promise.resolve();
  if (near.ended !== undefined) {
    assert.ok(["bad-message", "too-large"].includes(near.ended.code), near.ended.code);
    return `${near.ended.code} ${ruleOf(near.ended.message)}`;
  }
  assert.equal(replies.length, 1, "a request has one answer");
  const error = replies[0]?.["error"] as { code: string; message: string } | undefined;
  if (error === undefined) return "answered";
  assert.notEqual(error.code, "internal", error.message);
  return error.code === "declined" ? `called ${called}` : `${error.code} ${ruleOf(error.message)}`;
}

/** Requests of clients and of peers: every one is answered, or ends the connection. */
export const controlRequest: Target = {
  name: "control-request",
  covers: COVERS,
  format: "msgpack",
  maxInputBytes: 16 * 1024,
  seeds: requests,
  allocationBytes,
  async run(input) {
    const asClient = await request("client", input);
    return asClient.startsWith("forbidden") ? `peer ${await request("peer", input)}` : asClient;
  },
};

const REPLY_METHODS = (Object.keys(METHODS) as MethodName[]).sort();

function* replies(): Iterable<Uint8Array> {
  const results: object[] = [
    {},
    { guest: GUEST },
    { guests: [GUEST, GUEST] },
    { transfer: TRANSFER },
    { transfers: [TRANSFER] },
    {
      transfers: [
        { transfer: 1, guest: "a", host: "b", state: "running", pauseUs: 5, pauseParts: { stopUs: 1 } },
      ],
    },
    { lines: ["a", "b"] },
    { console: 5 },
    { warm: [{ host: "a", count: 3 }] },
    { topics: ["guest"] },
    { peers: [{ address: "a:1", state: "idle", transfers: 0 }] },
    { address: "a:1", name: "n", version: "1", roundTripsUs: [1.5] },
    { ready: true, missingFiles: [] },
    { loadUs: 1, runUs: 2 },
    { nextOffset: 5 },
    { name: "h", version: "1", emulators: [], availableBytes: 1 },
  ];
  for (const [index, result] of results.entries()) yield encodeMessage({ method: index, id: 1, result });
  for (const method of REPLY_METHODS.keys())
    yield encodeMessage({ method, id: 1, error: { code: "a", message: "b" } });
  yield encodeMessage({ event: "guest", data: { change: "added", guest: GUEST } });
  yield encodeMessage({ event: "transfer", data: { transfer: TRANSFER } });
  yield encodeMessage({ event: "lagged", data: { dropped: 1 } });
  yield encodeMessage({ event: "console", data: { console: 1, data: Buffer.from("x"), end: "y" } });
  yield encodeMessage({ event: "peerTransfer", data: { transfer: 1, phase: "paging" } });
}

/** The method that an input answers: a field that clients do not look at. */
function methodAnswered(input: Buffer): MethodName {
  let index = 0;
  try {
    const { method } = decodeMessage(input, { maxBytes: MAX_CONTROL_BYTES, maxValues: 1000 });
    if (typeof method === "number") index = Math.floor(Math.abs(method)) % REPLY_METHODS.length;
  } catch {
    // The client will find the same.
  }
  return REPLY_METHODS[index] ?? "guest.list";
}

/** Answers and events, as an agent may lie to a client or a peer. */
export const controlReply: Target = {
  name: "control-reply",
  covers: COVERS,
  format: "msgpack",
  maxInputBytes: 16 * 1024,
  seeds: replies,
  allocationBytes,
  async run(input) {
    const { near, far } = channelPair();
    const client = new RpcClient(near, { clock: new ManualClock(), log: silentLog });
    far.attach({ onFrame: () => {}, onEnd: () => {} });
    const events: string[] = [];
    client.onEvent(({ event }) => events.push(event));
    const answer = client.call(methodAnswered(input), {}, { deadlineMs: 1000 }).then(
      () => "answered",
      (error: unknown) => refusalOf([ControlError, RemoteError], error).slice(0, 12),
    );
    far.send(input);
    const early = client.end?.code ?? "";
    client.close();
    const outcome = await answer;
    assert.ok(["", "bad-message", "too-large"].includes(early), early);
    return `${outcome} ${early} ${events.join()}`;
  },
};
