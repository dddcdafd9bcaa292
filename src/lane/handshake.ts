import { randomBytes } from "node:crypto";
import type { CodedError } from "../base/index.js";
import { assert } from "../base/index.js";
import { PROTOCOL_VERSION } from "../wire/index.js";
import { LaneError, laneErrorCode } from "./errors.js";
import {
  clientMessage,
  decodeMessage,
  encodeMessage,
  NONCE_BYTES,
  serverMessage,
  type HelloMessage,
} from "./messages.js";
import { makeProof, proofIsRight, type Transcript } from "./proof.js";
import { fitsRoute, routeOf, type Purpose, type Role, type Route } from "./purpose.js";

/** Versions and features of this implementation, the newest version first. */
const VERSIONS: readonly number[] = [PROTOCOL_VERSION];
const FEATURES: readonly string[] = ["lz4"];

/** What a connection is for, as the dialling side says. */
export interface HelloFields {
  purpose: Purpose;
  role: Role;
  /** Page lanes only: the transfer's number, and how often its lanes were dialled, from 1. */
  transfer?: number | undefined;
  epoch?: number | undefined;
  /** What the other side gave out, on the control lane, for this purpose. */
  token?: string | undefined;
}

/** A hello, and what both sides agreed on. */
export interface Hello extends HelloFields {
  version: number;
  features: readonly string[];
}

/** What a side does next: send `reply` if there is one; with `agreed`, the handshake has ended well. */
export interface HandshakeStep {
  reply?: Buffer;
  agreed?: Hello;
}

/** The dialling side: hello → challenge → proof → welcome or refused. No sockets and no time, only messages. */
export class ClientHandshake {
  readonly helloBytes: Buffer;
  readonly #fields: HelloFields;
  readonly #key: Buffer | undefined;
  readonly #nonce: Buffer;
  #state: { at: "challenge" } | { at: "end"; agreed: Hello } | { at: "over" } = { at: "challenge" };

  /** @param options.nonce 32 fresh random bytes; given only by tests. */
  constructor(options: { fields: HelloFields; key?: Buffer | undefined; nonce?: Buffer }) {
    this.#fields = options.fields;
    this.#key = options.key;
    this.#nonce = options.nonce ?? randomBytes(NONCE_BYTES);
    this.helloBytes = encodeMessage({
      type: "hello",
      versions: [...VERSIONS],
      features: [...FEATURES],
      ...options.fields,
      nonce: this.#nonce,
    });
  }

  /** @throws LaneError when the other side refuses, is not to be trusted, or breaks the protocol. */
  onMessage(bytes: Uint8Array): HandshakeStep {
    switch (this.#state.at) {
      case "challenge":
        return this.#onChallenge(bytes);
      case "end": {
        const { agreed } = this.#state;
        const message = decodeMessage(serverMessage.end, bytes);
        this.#state = { at: "over" };
        if (message.type === "refused") throw refusal(message);
        return { agreed };
      }
      case "over":
        throw new LaneError("bad-message", "a handshake message came after the handshake");
    }
  }

  #onChallenge(bytes: Uint8Array): HandshakeStep {
    const challenge = decodeMessage(serverMessage.challenge, bytes);
    if (challenge.type === "refused") throw refusal(challenge);
    const transcript: Transcript = { helloBytes: this.helloBytes, clientNonce: this.#nonce, challenge };
    if (
      !VERSIONS.includes(challenge.version) ||
      challenge.features.some((name) => !FEATURES.includes(name))
    ) {
      throw new LaneError(
        "unsupported-version",
        `the other side chose version ${challenge.version} or features that were not offered`,
      );
    }
    if (!proofIsRight("server", challenge.proof, this.#key, transcript))
      throw notTheSameKey(this.#key, challenge.proof);
    const { version, features } = challenge;
    this.#state = { at: "end", agreed: { ...this.#fields, version, features } };
    return { reply: encodeMessage({ type: "proof", proof: makeProof("client", this.#key, transcript) }) };
  }
}

/** The listening side. What it throws is to be sent by `refusedMessage` before the connection is closed. */
export class ServerHandshake {
  readonly #options: { route: Route; key?: Buffer | undefined; authorise: (hello: Hello) => void };
  readonly #nonce: Buffer;
  #state: { at: "hello" } | { at: "proof"; agreed: Hello; transcript: Transcript } | { at: "over" } = {
    at: "hello",
  };

  /** @param options.authorise throws a coded error to refuse; it is asked only after the proof was found right. */
  constructor(options: {
    route: Route;
    key?: Buffer | undefined;
    authorise: (hello: Hello) => void;
    nonce?: Buffer;
  }) {
    this.#options = options;
    this.#nonce = options.nonce ?? randomBytes(NONCE_BYTES);
  }

  /** @throws LaneError, or what `authorise` throws. */
  onMessage(bytes: Uint8Array): HandshakeStep {
    switch (this.#state.at) {
      case "hello":
        return this.#onHello(bytes);
      case "proof": {
        const { agreed, transcript } = this.#state;
        const { proof } = decodeMessage(clientMessage.proof, bytes);
        this.#state = { at: "over" };
        if (!proofIsRight("client", proof, this.#options.key, transcript))
          throw notTheSameKey(this.#options.key, proof);
        this.#options.authorise(agreed);
        return { reply: encodeMessage({ type: "welcome" }), agreed };
      }
      case "over":
        throw new LaneError("bad-message", "a handshake message came after the handshake");
    }
  }

  #onHello(bytes: Uint8Array): HandshakeStep {
    const hello = decodeMessage(clientMessage.hello, bytes);
    const version = VERSIONS.find((known) => hello.versions.includes(known));
    if (version === undefined) {
      throw new LaneError(
        "unsupported-version",
        `this agent speaks versions ${VERSIONS.join(", ")}, not ${hello.versions.join(", ")}`,
      );
    }
    checkPurpose(hello, this.#options.route);
    const features = FEATURES.filter((name) => hello.features.includes(name));
    const challenge = { version, features, nonce: this.#nonce };
    const transcript: Transcript = {
      helloBytes: Uint8Array.from(bytes),
      clientNonce: hello.nonce,
      challenge,
    };
    const { purpose, role, transfer, epoch, token } = hello;
    this.#state = {
      at: "proof",
      agreed: { purpose, role, transfer, epoch, token, version, features },
      transcript,
    };
    const proof = makeProof("server", this.#options.key, transcript);
    return { reply: encodeMessage({ type: "challenge", ...challenge, proof }) };
  }
}

/** The message that tells a client why it is not let in. An error without `fatal` counts as fatal. */
export function refusedMessage(error: CodedError): Buffer {
  const fatal = !("fatal" in error) || error.fatal === true;
  return encodeMessage({
    type: "refused",
    code: error.code.slice(0, 64),
    message: error.message.slice(0, 1024),
    fatal,
  });
}

function checkPurpose(hello: HelloMessage, route: Route): void {
  if (!fitsRoute(hello.purpose, route)) {
    throw new LaneError(
      "bad-message",
      `a connection for ${hello.purpose} is dialled at ${routeOf(hello.purpose).path}`,
    );
  }
  const forPages = hello.purpose !== "control";
  if (forPages && hello.role !== "peer") {
    throw new LaneError("bad-message", "page lanes are dialled by peers, not by clients");
  }
  if (forPages !== (hello.transfer !== undefined) || forPages !== (hello.epoch !== undefined)) {
    throw new LaneError(
      "bad-message",
      "a hello names a transfer and an epoch for a page lane, and neither for control",
    );
  }
}

function refusal(message: { code: string; message: string; fatal: boolean }): LaneError {
  const code = laneErrorCode(message.code, "refused");
  return new LaneError(code, message.message, { fatal: message.fatal });
}

/** Only called after the given proof was found wrong. */
function notTheSameKey(ownKey: Buffer | undefined, given: Uint8Array): LaneError {
  assert(ownKey !== undefined || given.length > 0, "two sides without keys have nothing to prove");
  if (ownKey === undefined) {
    return new LaneError(
      "unauthenticated",
      "the other side asks for a pre-shared key, and none is configured here",
    );
  }
  if (given.length === 0)
    return new LaneError(
      "unauthenticated",
      "the other side has no pre-shared key, and one is configured here",
    );
  return new LaneError("unauthenticated", "the other side has another pre-shared key");
}
