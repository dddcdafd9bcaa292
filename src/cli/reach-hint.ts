import type { AgentAddress } from "./agent-address.js";

/** What to do about a certificate that is not taken, by what is wrong with it. */
const HINTS: { [code: string]: string } = {
  "bad-credentials":
    "the message names the file; --certificate, --key and --authority name others, --tls a directory of them",
  "certificate-missing":
    "have one issued (ramet pki issue YOU --role operate) and give its directory with --tls, or keep it as ~/.config/ramet/tls",
  "certificate-untrusted":
    "both sides need certificates of one authority: compare --authority with tls.authority of the agent",
  "certificate-expired": "have a new one issued: ramet pki issue NAME --renew, where the authority is",
  "certificate-revoked": "ask whoever has the authority for a new one: ramet pki issue NAME --renew",
  "certificate-name":
    "dial the agent by a name or address in its certificate, or issue it one with this address: ramet pki issue --renew --address",
  "certificate-role":
    "have a certificate with the role you need issued: ramet pki issue YOU --renew --role operate",
  "tls-failed":
    "is that port an agent's, of a version that speaks TLS? ws://HOST:PORT with --key-file is for plain ones on loopback",
};

/** What the user can do when there is no connection to the agent. */
export function reachHint(code: string, address: AgentAddress, given: { hasKey: boolean }): string {
  const known = Object.hasOwn(HINTS, code) ? HINTS[code] : undefined;
  if (known !== undefined) return known;
  if (address.shown === "key" && (code === "unauthenticated" || code === "refused")) {
    return given.hasKey
      ? "the key in --key-file must be the one of the agent's keyFile"
      : "the agent asks for its pre-shared key: give it with --key-file";
  }
  if (address.shown !== "nothing")
    return "is rametd running there, and does it listen on that address (tls in its configuration)?";
  return "is rametd running, and are you root? systemctl status rametd; --agent names another agent";
}
