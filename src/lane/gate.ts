import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { withoutControls } from "./end.js";
import { LaneError, laneErrorCode } from "./errors.js";
import { ROUTES, SUBPROTOCOL, type Route } from "./purpose.js";

const STATUS = { 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 426: "Upgrade Required" } as const;

/** What is wrong with a request, as an HTTP status. */
type Refusal = keyof typeof STATUS;

/** The route an upgrade request asks for, or why it is turned away before anything is upgraded. */
export function checkUpgrade(request: IncomingMessage): Route | Refusal {
  // Browsers send it always and agents never: a web page must not reach an agent that listens on its reader's machine.
  if (request.headers.origin !== undefined) return 403;
  const route = ROUTES.find(({ path }) => path === request.url);
  if (route === undefined) return 404;
  const offered = (request.headers["sec-websocket-protocol"] ?? "").split(",").map((name) => name.trim());
  return offered.includes(SUBPROTOCOL) ? route : 400;
}

/** The header that says why a certificate is not let in, as `code: message`, percent-encoded. */
const REFUSAL_HEADER = "ramet-refusal";
const REFUSAL = /^([a-z-]{1,40}): (.{1,1024})$/su;

/** Answers with a status and no body, and ends the connection. */
export function turnAway(socket: Duplex, status: Refusal, why?: LaneError): void {
  const header =
    why === undefined ? "" : `${REFUSAL_HEADER}: ${encodeURIComponent(`${why.code}: ${why.message}`)}\r\n`;
  socket.end(
    `HTTP/1.1 ${status} ${STATUS[status]}\r\n${header}Connection: close\r\nContent-Length: 0\r\n\r\n`,
  );
}

/** What `turnAway` was told, read from an answer's headers; undefined when it said nothing. */
export function readRefusal(headers: IncomingHttpHeaders): LaneError | undefined {
  const header = headers[REFUSAL_HEADER];
  try {
    const [, code, message] =
      REFUSAL.exec(decodeURIComponent(typeof header === "string" ? header : "")) ?? [];
    if (code === undefined || message === undefined) return undefined;
    return new LaneError(laneErrorCode(code, "refused"), withoutControls(message));
  } catch {
    return undefined;
  }
}
