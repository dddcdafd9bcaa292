import { Command } from "commander";
import type { InstalledEmulator } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { formatTable } from "../format/table.js";

/** `ramet emulators`: the emulators of the agent's host, and which guests run on which. */
export function emulatorsCommand(cli: Cli): Command {
  const command = new Command("emulators").description(
    "list the emulators of the host and the guests that run on each",
  );
  return command.action(async () => {
    const context = cli.context(command);
    context.answer(await context.call("emulator.list", {}), ({ emulators }) =>
      emulators.length === 0 ? ["this host has no emulator"] : format(emulators),
    );
  });
}

function format(emulators: readonly InstalledEmulator[]): string[] {
  return formatTable(
    [{ title: "VERSION" }, { title: "ARCHITECTURE" }, { title: "PATH" }, { title: "GUESTS" }, { title: "" }],
    emulators.map(({ version, architecture, path, guests, isDefault, problem }) => [
      version ?? "-",
      architecture,
      path ?? "not there any more",
      guests.length === 0 ? "-" : guests.join(", "),
      problem ?? (isDefault ? "guests start on it" : ""),
    ]),
  );
}
