import { Command, Option } from "commander";
import { ACCESS_ROLES, tenantProblem, type AccessRole } from "../../base/index.js";
import type { Cli } from "../cli.js";
import { CliError } from "../errors.js";
import { formatFields, formatTable } from "../format/table.js";
import { formatTime } from "../format/units.js";
import { collect, wholeNumber } from "../options.js";
import { NAME_RULE, type Issued, type Wanted } from "../pki/authority.js";

const DEFAULT_DIRECTORY = "/etc/ramet/pki";
const AUTHORITY_DAYS = 3650;
const CERTIFICATE_DAYS = 825;
const MAX_DAYS = 36_500;
const ADDRESS_RULE = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:.]{2,45})$/;
const AUTHORITY_NAME_RULE = /^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$/;

/** `ramet pki`: an authority for certificates of agents and people. */
export function pkiCommand(cli: Cli): Command {
  const command = new Command("pki").description("make, issue and revoke certificates for agents and people");
  for (const inner of [initCommand(cli), issueCommand(cli), revokeCommand(cli), listCommand(cli)]) {
    inner.option(
      "--directory <directory>",
      "directory of the authority",
      cli.environment.variables.RAMET_PKI ?? DEFAULT_DIRECTORY,
    );
    command.addCommand(inner);
  }
  command.addCommand(reloadCommand(cli));
  return command;
}

function initCommand(cli: Cli): Command {
  const command = new Command("init")
    .description("make an authority, where there is none yet")
    .option("--name <name>", "what the authority is called", "Ramet authority")
    .option("--days <days>", "how long it lasts", wholeNumber(1, MAX_DAYS), AUTHORITY_DAYS);
  return command.action((options: { directory: string; name: string; days: number }) => {
    const context = cli.context(command);
    requireRule("authority's name", options.name, AUTHORITY_NAME_RULE);
    const { directory, name, days } = options;
    const { created } = cli.environment.authorities.create(directory, {
      name,
      days,
      clock: cli.environment.clock,
    });
    context.answer({ directory, created }, () => [
      created
        ? `${directory} holds a new authority, ${name}`
        : `${directory} holds an authority already; it is kept`,
    ]);
  });
}

interface IssueOptions {
  role: string[];
  tenant?: string;
  address?: string[];
  days: number;
}

/** What is asked for, checked. @throws CliError `usage` */
function wantedOf(name: string, options: IssueOptions): Wanted {
  requireRule("holder's name", name, NAME_RULE);
  const roles = options.role.map(requireRole);
  const { tenant, days, address: addresses = [] } = options;
  if (tenant !== undefined) requireTenant(tenant, roles);
  for (const address of addresses) requireRule("address", address, ADDRESS_RULE);
  if (roles.includes("peer") && addresses.length === 0) {
    throw new CliError("usage", "an agent's certificate needs an address", {
      hint: "give every name and IP address it is dialled by with --address",
    });
  }
  return { name, roles: [...new Set(roles)], tenant, addresses: [...new Set(addresses)], days };
}

function issueCommand(cli: Cli): Command {
  const command = new Command("issue")
    .description("issue a certificate, with a key, to a host or a person")
    .argument("<name>", "of the holder: a host, a person")
    .addOption(
      new Option(
        "-r, --role <role>",
        "what the holder may do, repeatable: observe, operate, admin; peer for agents",
      )
        .makeOptionMandatory()
        .argParser(collect),
    )
    .option(
      "-a, --address <address>",
      "host name or IP address under which the holder is dialled, repeatable",
      collect,
    )
    .option(
      "--tenant <tenant>",
      "whose images alone the holder sees and changes (default: those of all, and the host)",
    )
    .option("--days <days>", "how long it lasts", wholeNumber(1, MAX_DAYS), CERTIFICATE_DAYS)
    .option("--renew", "issue another to a holder who has one");
  return command.action((name: string, options: IssueOptions & { directory: string; renew?: true }) => {
    const context = cli.context(command);
    const wanted = wantedOf(name, options);
    const authority = cli.environment.authorities.open(options.directory, cli.environment.clock);
    const { issued, created } = authority.issue(wanted, { renew: options.renew === true });
    const files = authority.directoryOf(name);
    context.answer({ ...issued, files, created }, () => [
      created ? `${name} has a new certificate` : `${name} has this certificate already; it is kept`,
      ...formatFields([
        ["serial number", issued.serial],
        ["roles", issued.roles.join(", ")],
        ["tenant", issued.tenant],
        ["addresses", issued.addresses.join(", ") || "-"],
        ["expires", formatTime(issued.expiresAtMs)],
        ["files", files],
      ]),
      `take ${files} to ${name}, over ssh, as ${wanted.roles.includes("peer") ? "/etc/ramet/tls" : "~/.config/ramet/tls"}`,
    ]);
  });
}

function revokeCommand(cli: Cli): Command {
  const command = new Command("revoke")
    .description("revoke a certificate, and write the list of revoked ones anew")
    .argument("<certificate>", "name of the holder, or a serial number");
  return command.action((which: string, options: { directory: string }) => {
    const context = cli.context(command);
    const authority = cli.environment.authorities.open(options.directory, cli.environment.clock);
    const revoked = authority.revoke(which);
    context.answer({ revoked }, () => [
      ...(revoked.length === 0
        ? [`${which} was revoked before`]
        : revoked.map(({ name, serial }) => `${name} ${serial} is revoked`)),
      `take ${options.directory}/revoked.pem to every host as /etc/ramet/tls/revoked.pem: agents see it within seconds`,
    ]);
  });
}

function listCommand(cli: Cli): Command {
  const command = new Command("list").description("list the certificates the authority has issued");
  return command.action((options: { directory: string }) => {
    const context = cli.context(command);
    const certificates = cli.environment.authorities.open(options.directory, cli.environment.clock).list();
    context.answer({ certificates }, () =>
      certificates.length === 0 ? ["no certificates"] : formatList(certificates),
    );
  });
}

function reloadCommand(cli: Cli): Command {
  const command = new Command("reload").description("have the agent read its certificates again at once");
  return command.action(async () => {
    const context = cli.context(command);
    context.answer(await context.call("agent.reload", {}), ({ subject, endsAtMs }) => [
      subject === undefined || endsAtMs === undefined
        ? "the agent has no certificate"
        : `the agent is ${subject}, until ${formatTime(endsAtMs)}`,
    ]);
  });
}

function formatList(certificates: readonly Issued[]): string[] {
  return formatTable(
    [
      { title: "NAME" },
      { title: "STATE" },
      { title: "ROLES" },
      { title: "ADDRESSES" },
      { title: "EXPIRES" },
      { title: "SERIAL NUMBER" },
    ],
    certificates.map(({ name, state, roles, addresses, expiresAtMs, serial }) => [
      name,
      state,
      roles.join(", ") || "-",
      addresses.join(", ") || "-",
      formatTime(expiresAtMs),
      serial,
    ]),
  );
}

function requireRole(text: string): AccessRole {
  const role = ACCESS_ROLES.find((known) => known === text);
  if (role !== undefined) return role;
  throw new CliError("usage", `${JSON.stringify(text)} is not a role`, {
    hint: `roles are ${ACCESS_ROLES.join(", ")}`,
  });
}

/** An agent serves all tenants. */
function requireTenant(tenant: string, roles: readonly AccessRole[]): void {
  const problem = roles.includes("peer") ? "an agent belongs to no tenant" : tenantProblem(tenant);
  if (problem !== undefined) throw new CliError("usage", problem);
}

function requireRule(what: string, text: string, rule: RegExp): void {
  if (!rule.test(text))
    throw new CliError("usage", `the ${what} ${JSON.stringify(text)} has characters that are not allowed`);
}
