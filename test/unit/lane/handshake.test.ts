import assert from "node:assert/strict";
import { test } from "node:test";
import { Packr, Unpackr } from "msgpackr";
import { LaneError, type LaneErrorCode } from "../../../src/lane/index.js";
import { ClientHandshake, refusedMessage, ServerHandshake, type Hello } from "../../../src/lane/handshake.js";
import { ROUTES } from "../../../src/lane/purpose.js";
import { KEY } from "../../support/lane-pair.js";

const [CONTROL, LANE] = ROUTES;
assert.ok(CONTROL !== undefined && LANE !== undefined);

const packr = new Packr({ useRecords: false });
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true });

type Fields = Record<string, unknown>;

/** The message with some fields changed; undefined takes a field away. */
function changed(message: Uint8Array, changes: Fields): Buffer {
  const fields = { ...(unpackr.unpack(message) as Fields), ...changes };
  return Buffer.from(
    packr.pack(Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))),
  );
}

function pair(keys: { client?: Buffer; server?: Buffer } = {}, authorise: (hello: Hello) => void = () => {}) {
  const fields = { purpose: "urgent", role: "peer", transfer: 9, epoch: 2, token: "t" } as const;
  const client = new ClientHandshake({ fields, key: keys.client });
  const server = new ServerHandshake({ route: LANE as never, key: keys.server, authorise });
  const challenge = () => server.onMessage(client.helloBytes).reply as Buffer;
  return { client, server, challenge };
}

function refuses(code: LaneErrorCode, run: () => unknown, pattern = /./): void {
  assert.throws(run, (error) => {
    assert.ok(error instanceof LaneError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, pattern);
    return true;
  });
}

for (const key of [undefined, KEY]) {
  test(`both sides agree ${key === undefined ? "without keys" : "with the same key"}`, () => {
    let asked: Hello | undefined;
    const keys = key === undefined ? {} : { client: key, server: key };
    const { client, server, challenge } = pair(keys, (hello) => (asked = hello));
    const proof = client.onMessage(challenge()).reply as Buffer;
    assert.equal(asked, undefined, "nobody is asked about a client that has proved nothing");
    const welcome = server.onMessage(proof);
    const agreed = {
      purpose: "urgent",
      role: "peer",
      transfer: 9,
      epoch: 2,
      token: "t",
      version: 1,
      features: ["lz4"],
    };
    assert.deepEqual(welcome.agreed, agreed);
    assert.deepEqual(asked, agreed);
    assert.deepEqual(client.onMessage(welcome.reply as Buffer).agreed, agreed);
    refuses("bad-message", () => server.onMessage(proof));
    refuses("bad-message", () => client.onMessage(welcome.reply as Buffer));
  });
}

test("a client with the wrong key, or with none, or with one too many, finds out first", () => {
  const other = Buffer.from("another key for the tests");
  const cases: [{ client?: Buffer; server?: Buffer }, RegExp][] = [
    [{ client: other, server: KEY }, /another pre-shared key/],
    [{ server: KEY }, /asks for a pre-shared key/],
    [{ client: KEY }, /has no pre-shared key/],
  ];
  for (const [keys, pattern] of cases) {
    const { client, challenge } = pair(keys);
    refuses("unauthenticated", () => client.onMessage(challenge()), pattern);
  }
});

test("a listener refuses a proof that is wrong, empty, its own, or from another connection", () => {
  const keys = { client: KEY, server: KEY };
  const earlier = pair(keys);
  const replayed = earlier.client.onMessage(earlier.challenge()).reply as Buffer;
  const proofs: ((challenge: Buffer, proof: Buffer) => Buffer)[] = [
    () => replayed,
    (_, proof) => changed(proof, { proof: new Uint8Array(32) }),
    (_, proof) => changed(proof, { proof: new Uint8Array(0) }),
    (challenge, proof) => changed(proof, { proof: (unpackr.unpack(challenge) as Fields)["proof"] }),
  ];
  for (const make of proofs) {
    const { client, server, challenge } = pair(keys, () => assert.fail("nobody may be asked"));
    const challengeBytes = challenge();
    const proof = client.onMessage(challengeBytes).reply as Buffer;
    refuses("unauthenticated", () => server.onMessage(make(challengeBytes, proof)));
  }
});

test("a hello or a challenge that was changed on the way breaks the proofs", () => {
  const keys = { client: KEY, server: KEY };
  for (const changes of [
    { epoch: 3 },
    { transfer: 10 },
    { purpose: "bulk" },
    { token: "u" },
    { features: [] },
  ]) {
    const { client, server } = pair(keys);
    const challenge = server.onMessage(changed(client.helloBytes, changes)).reply as Buffer;
    refuses("unauthenticated", () => client.onMessage(challenge));
  }
  const { client, challenge } = pair(keys);
  refuses("unauthenticated", () => client.onMessage(changed(challenge(), { features: [] })));
});

test("versions and features: the newest both know, and nothing that was not offered", () => {
  const { client, server, challenge } = pair();
  refuses(
    "unsupported-version",
    () => server.onMessage(changed(client.helloBytes, { versions: [2, 3] })),
    /versions 1, not 2, 3/,
  );
  const many = pair();
  const reply = many.server.onMessage(
    changed(many.client.helloBytes, { versions: [7, 1], features: ["zstd", "lz4"] }),
  ).reply;
  const agreed = unpackr.unpack(reply as Buffer) as Fields;
  assert.equal(agreed["version"], 1);
  assert.deepEqual(agreed["features"], ["lz4"]);
  refuses("unsupported-version", () => client.onMessage(changed(challenge(), { version: 2 })));
  const third = pair();
  refuses("unsupported-version", () =>
    third.client.onMessage(changed(third.challenge(), { features: ["zstd"] })),
  );
});

test("a purpose is dialled at its path, with a transfer and an epoch for page lanes alone", () => {
  const wrong: [typeof CONTROL, Fields][] = [
    [LANE, { purpose: "control", transfer: undefined, epoch: undefined }],
    [CONTROL, {}],
    [LANE, { transfer: undefined }],
    [LANE, { epoch: undefined }],
    [CONTROL, { purpose: "control" }],
    [LANE, { role: "client" }],
  ];
  for (const [route, changes] of wrong) {
    const { client } = pair();
    const server = new ServerHandshake({ route: route, authorise: () => {} });
    refuses("bad-message", () => server.onMessage(changed(client.helloBytes, changes)));
  }
});

test("every field has its rule", () => {
  const wrong: Fields[] = [
    { type: "challenge" },
    { versions: [] },
    { versions: [0] },
    { versions: Array.from({ length: 17 }, () => 1) },
    { features: [""] },
    { features: ["x".repeat(33)] },
    { purpose: "sweep" },
    { role: "admin" },
    { transfer: -1 },
    { transfer: 2 ** 32 },
    { transfer: 1.5 },
    { epoch: 0 },
    { token: "x".repeat(257) },
    { token: 5 },
    { nonce: new Uint8Array(31) },
    { nonce: "x".repeat(32) },
  ];
  for (const changes of wrong) {
    const { client, server } = pair();
    refuses(
      "bad-message",
      () => server.onMessage(changed(client.helloBytes, changes)),
      new RegExp(Object.keys(changes)[0] ?? ""),
    );
  }
  const { client, server } = pair();
  assert.ok(
    server.onMessage(changed(client.helloBytes, { later: "a field of version 2" })).reply !== undefined,
  );
});

test("what is not MessagePack, not a map, too long or out of turn is refused", () => {
  const nested = Buffer.alloc(4000, 0x91);
  for (const bytes of [
    Buffer.alloc(0),
    Buffer.from([0xc1]),
    Buffer.from("ddffffffff", "hex"),
    Buffer.alloc(5000),
    nested,
  ]) {
    refuses("bad-message", () => pair().server.onMessage(bytes));
    refuses("bad-message", () => pair().client.onMessage(bytes));
  }
  const { server, challenge } = pair();
  const challengeBytes = challenge();
  refuses("bad-message", () => server.onMessage(challengeBytes));
});

test("a refusal brings its code, message and whether it is for good", () => {
  for (const error of [
    new LaneError("unknown-transfer", "this agent knows no transfer 9"),
    new LaneError("closed", "the agent is stopping"),
  ]) {
    const { client, challenge } = pair();
    client.onMessage(challenge());
    assert.throws(() => client.onMessage(refusedMessage(error)), {
      code: error.code,
      message: error.message,
      fatal: error.fatal,
    });
  }
  const { client } = pair();
  const strange = changed(refusedMessage(new LaneError("closed", "no")), { code: "moon-phase" });
  assert.throws(() => client.onMessage(strange), { code: "refused", fatal: false });
});
