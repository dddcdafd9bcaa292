import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { CredentialFiles } from "../lane/index.js";
import type { Environment } from "./environment.js";
import { CREDENTIAL_NAMES } from "./pki/authority.js";

/** The options that say what is shown to an agent over the network, and whose certificates are taken. */
export interface CredentialOptions {
  tls?: string;
  certificate?: string;
  key?: string;
  authority?: string;
  revoked?: string;
}

/**
 * The files to use for `wss://`: those named by options, those named by the environment, and for the others those of a directory as
 * `ramet pki issue` makes it, by default `~/.config/ramet/tls`.
 * @returns undefined when nothing was named and the directory is not there.
 */
export function credentialFiles(
  options: CredentialOptions,
  variables: Environment["variables"],
): CredentialFiles | undefined {
  const directory = options.tls ?? variables.RAMET_TLS ?? defaultDirectory(variables);
  const named = {
    certificate: options.certificate ?? variables.RAMET_CERTIFICATE,
    key: options.key ?? variables.RAMET_KEY,
    authority: options.authority ?? variables.RAMET_AUTHORITY,
    revoked: options.revoked ?? variables.RAMET_REVOKED,
  };
  const nothingNamed = Object.values(named).every((path) => path === undefined);
  const isDefault = options.tls === undefined && variables.RAMET_TLS === undefined;
  if (isDefault && nothingNamed && !existsSync(directory)) return undefined;
  const at = (name: keyof typeof CREDENTIAL_NAMES): string => join(directory, CREDENTIAL_NAMES[name]);
  const revoked = named.revoked ?? (existsSync(at("revoked")) ? at("revoked") : undefined);
  return {
    certificate: named.certificate ?? at("certificate"),
    key: named.key ?? at("key"),
    authority: named.authority ?? at("authority"),
    ...(revoked === undefined ? {} : { revoked }),
  };
}

function defaultDirectory(variables: Environment["variables"]): string {
  const configuration = variables.XDG_CONFIG_HOME ?? join(variables.HOME ?? homedir(), ".config");
  return join(configuration, "ramet", "tls");
}
