import type { LaneErrorCode } from "./errors.js";
import { MAX_CLOSE_REASON_BYTES } from "./limits.js";

/** Why a connection ended. `fatal` means that dialling again cannot help. */
export interface ConnectionEnd {
  code: string;
  message: string;
  fatal: boolean;
}

/** WebSocket close codes of this protocol (4000 to 4999 are free for it: RFC 6455, 7.4.2). */
export const CLOSE_CODE = { mayDialAgain: 4000, fatal: 4001 } as const;

/** Close codes of RFC 6455 that tell something; whatever else comes is a broken connection. */
const MESSAGE_TOO_BIG = 1009;
const NO_CLOSE_FRAME = 1006;

const REASON = /^([A-Za-z][A-Za-z0-9_-]{0,39}): (.*)$/su;
/** A peer's text must not steer a terminal or break a log's lines. */
const CONTROL_CHARACTERS = /[\u0000-\u001f\u007f-\u009f]/gu;

/** A text of the other side's, safe to show. */
export function withoutControls(text: string): string {
  return text.replace(CONTROL_CHARACTERS, " ");
}

/** The close code and reason that carry an end to the other side; a long message is cut. */
export function encodeEnd(end: ConnectionEnd): { closeCode: number; reason: Buffer } {
  const text = Buffer.from(`${end.code}: ${end.message}`, "utf8");
  let sizeBytes = Math.min(text.length, MAX_CLOSE_REASON_BYTES);
  // Not in the middle of a character: continuation bytes of UTF-8 are 10xxxxxx.
  while (sizeBytes < text.length && ((text[sizeBytes] as number) & 0xc0) === 0x80) sizeBytes -= 1;
  const closeCode = end.fatal ? CLOSE_CODE.fatal : CLOSE_CODE.mayDialAgain;
  return { closeCode, reason: text.subarray(0, sizeBytes) };
}

/** What a close frame says. Anything not of this protocol is an end that may be dialled again. */
export function decodeEnd(closeCode: number, reason: Buffer): ConnectionEnd {
  if (closeCode === CLOSE_CODE.fatal || closeCode === CLOSE_CODE.mayDialAgain) {
    const parts = REASON.exec(reason.toString("utf8"));
    const code = parts?.[1] ?? ("closed" satisfies LaneErrorCode);
    const message = withoutControls(parts?.[2] ?? "the other side gave no reason");
    return { code, message, fatal: closeCode === CLOSE_CODE.fatal };
  }
  if (closeCode === MESSAGE_TOO_BIG) {
    return {
      code: "too-large",
      message: "the other side was sent a longer message than it takes",
      fatal: true,
    };
  }
  const what = closeCode === NO_CLOSE_FRAME ? "without a word" : `with code ${closeCode}`;
  return { code: "closed", message: `the connection was closed ${what}`, fatal: false };
}

/** The end that an error of the WebSocket or its socket makes; `remote` names the other side. */
export function endOfError(error: Error, remote: string): ConnectionEnd {
  const code = "code" in error ? String(error.code) : "";
  if (code === "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH") {
    return { code: "too-large", message: `${remote} sent a longer message than is taken here`, fatal: true };
  }
  if (code.startsWith("WS_ERR_")) {
    return {
      code: "bad-message",
      message: `${remote} does not keep to WebSocket: ${error.message}`,
      fatal: true,
    };
  }
  return { code: "closed", message: `the connection to ${remote} broke: ${error.message}`, fatal: false };
}
