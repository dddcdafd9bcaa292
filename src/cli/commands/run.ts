import { resolve } from "node:path";
import { Command, Option } from "commander";
import { guestNameIn, tenantOfGuest, tenantProblem } from "../../base/index.js";
import {
  ARCHITECTURES,
  DEFAULT_MEMORY_MIB,
  type Architecture,
  type ParamsInput,
  type Result,
} from "../../control/index.js";
import type { Cli } from "../cli.js";
import { WORK_DEADLINE_MS, type Context } from "../context.js";
import { CliError } from "../errors.js";
import { followDiskWork } from "../disk-follower.js";
import { formatGuestDisk } from "../format/disk.js";
import { formatForward } from "../format/guest.js";
import { collectDisk, DISK_HELP, type RunDisk } from "../disk-option.js";
import { collect, given, memoryMiB, wholeNumber } from "../options.js";

interface RunOptions {
  kernel?: string;
  initrd?: string;
  append?: string;
  memory: number;
  cpus: number;
  architecture: Architecture;
  machine?: string;
  network?: "none" | "user" | "tap";
  bridge?: string;
  mac?: string;
  forward?: string[];
  disk?: RunDisk[];
  tenant?: string;
}

/** `ramet run NAME`: starts a new guest. */
export function runCommand(cli: Cli): Command {
  const command = new Command("run")
    .description("start a new guest")
    .argument("<name>", "name of the guest: lower-case letters, digits and dashes")
    .option(
      "-k, --kernel <file>",
      "kernel image, on the agent's machine (default: it boots from its first disk)",
    )
    .option("-i, --initrd <file>", "initial RAM disk")
    .option("-a, --append <text>", "kernel command line")
    .option("-m, --memory <size>", "memory in MiB, or with a unit: 512, 2G", memoryMiB, DEFAULT_MEMORY_MIB)
    .option("-c, --cpus <count>", "processors", wholeNumber(1, 64), 1)
    .addOption(
      new Option("--architecture <name>", "instruction set").choices([...ARCHITECTURES]).default("x86_64"),
    )
    .option("--machine <type>", "versioned machine type (default: the emulator's newest)")
    .addOption(new Option("-n, --network <mode>", "network").choices(["none", "user", "tap"]))
    .option("--bridge <interface>", "bridge to put the tap interface on")
    .option("--mac <address>", "hardware address (default: made up)")
    .option(
      "-p, --forward <forward>",
      "[ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp], repeatable; implies --network user",
      collect,
    )
    .option("-d, --disk <disk>", "a disk, repeatable: image:debian-12,size=20G, or as below", collectDisk)
    .option(
      "-t, --tenant <tenant>",
      "whose guest it is: NAME@TENANT (default: that of your certificate, or default)",
    )
    .addHelpText(
      "after",
      `${DISK_HELP}\nExample:\n  ramet run web --kernel /boot/vmlinuz --initrd /srv/web.cpio --append console=ttyS0 -m 512 -p 8080:80`,
    );
  return command.action(async (name: string, options: RunOptions) => {
    const context = cli.context(command);
    const result = await run(context, nameFor(name, options.tenant), options);
    context.answer(result, ({ guest }) => {
      const lines = [`${guest.name} ${guest.state === "running" ? "runs" : `is ${guest.state}`}`];
      if (guest.network.mode === "user") {
        lines.push(...guest.network.forwards.map((forward) => `  forward  ${formatForward(forward)}`));
      }
      lines.push(...(guest.disks ?? []).map((disk) => `  ${formatGuestDisk(disk)}`));
      return lines;
    });
  });
}

/** Disks that are copied whole take as long as there is to copy. */
function run(context: Context, name: string, options: RunOptions): Promise<Result<"guest.run">> {
  const params = runParams(context, name, options);
  if (options.disk?.some(({ differencing }) => differencing === false) !== true)
    return context.call("guest.run", params, WORK_DEADLINE_MS);
  return followDiskWork(
    context,
    `copying for ${name}`,
    (work, deadlineMs) => context.call("guest.run", { ...params, work }, deadlineMs),
    "the guest is not run, unless its disks were copied already (ramet list)",
  );
}

function runParams(context: Context, name: string, options: RunOptions): ParamsInput<"guest.run"> {
  const { kernel, disk, initrd, append } = options;
  if (kernel === undefined && disk === undefined)
    throw new CliError("usage", "run needs --kernel, or a --disk to boot from");
  if (kernel === undefined && (initrd ?? append) !== undefined)
    throw new CliError("usage", `${initrd === undefined ? "--append" : "--initrd"} needs --kernel`);
  return {
    name,
    memoryMiB: options.memory,
    cpus: options.cpus,
    architecture: options.architecture,
    network: networkOf(options),
    ...given({
      disks: options.disk,
      kernel: options.kernel === undefined ? undefined : bootFile(context, options.kernel),
      initrd: options.initrd === undefined ? undefined : bootFile(context, options.initrd),
      append: options.append,
      machine: options.machine,
    }),
  };
}

/** The name of a tenant's guest. */
function nameFor(name: string, tenant: string | undefined): string {
  if (tenant === undefined) return name;
  const problem = tenantProblem(tenant);
  if (problem !== undefined) throw new CliError("usage", `--tenant: ${problem}`);
  const whole = guestNameIn(tenant, name);
  if (tenantOfGuest(whole) === tenant) return whole;
  throw new CliError(
    "usage",
    `${name} is a name of the tenant ${tenantOfGuest(name)}, and --tenant says ${tenant}`,
  );
}

/** A relative path means this machine's working directory, which only the agent of this machine shares. */
function bootFile(context: Context, path: string): string {
  return context.address.shown === "nothing" ? resolve(path) : path;
}

function networkOf(options: RunOptions): ParamsInput<"guest.run">["network"] {
  const { bridge, mac, forward } = options;
  const implied = forward !== undefined ? "user" : bridge !== undefined ? "tap" : "none";
  const mode = options.network ?? implied;
  if (forward !== undefined && mode !== "user") throw misplaced("--forward", "user", mode);
  if (bridge !== undefined && mode !== "tap") throw misplaced("--bridge", "tap", mode);
  if (mode === "none") {
    if (mac !== undefined) throw misplaced("--mac", "user or tap", mode);
    return { mode };
  }
  if (mode === "tap") return { mode, ...given({ bridge, mac }) };
  return { mode, forwards: forward ?? [], ...given({ mac }) };
}

function misplaced(option: string, needs: string, mode: string): CliError {
  return new CliError("usage", `${option} needs --network ${needs}, not ${mode}`);
}
