import { Command } from "commander";
import type { Cli } from "./cli.js";
import { auditCommand } from "./commands/audit.js";
import { completionCommand } from "./commands/completion.js";
import { consoleCommand } from "./commands/console.js";
import { diskCommand } from "./commands/disk.js";
import { emulatorsCommand } from "./commands/emulators.js";
import { exchangeCommand } from "./commands/exchange.js";
import { forkCommand } from "./commands/fork.js";
import { freezeCommand, thawCommand } from "./commands/freeze.js";
import { imageCommand } from "./commands/image.js";
import { killCommand } from "./commands/kill.js";
import { listCommand } from "./commands/list.js";
import { logsCommand } from "./commands/logs.js";
import { migrateCommand } from "./commands/migrate.js";
import { peersCommand } from "./commands/peers.js";
import { pkiCommand } from "./commands/pki.js";
import { pingCommand } from "./commands/ping.js";
import { removeCommand } from "./commands/remove.js";
import { runCommand } from "./commands/run.js";
import { showCommand } from "./commands/show.js";
import { rollbackCommand } from "./commands/rollback.js";
import { cancelCommand, steerCommand, sweepCommand } from "./commands/steer.js";
import { stopCommand } from "./commands/stop.js";
import { resumeCommand, suspendCommand } from "./commands/suspend.js";
import { swapCommand } from "./commands/swap.js";
import { transfersCommand } from "./commands/transfers.js";
import { versionCommand } from "./commands/version.js";
import { warmCommand } from "./commands/warm.js";
import { watchCommand } from "./commands/watch.js";

const EPILOGUE = `
Environment:
  RAMET_AGENT     the agent, where --agent is not given
  RAMET_TLS, RAMET_CERTIFICATE, RAMET_KEY, RAMET_AUTHORITY, RAMET_REVOKED, RAMET_KEY_FILE
                  what the options of these names are, where they are not given

Exit codes:
  0 done   1 failed   2 wrong usage   3 agent not reached   4 not found   5 refused   6 out of time   130 interrupted`;

/** The whole command line, one file for each command. */
export function createProgram(cli: Cli): Command {
  const program = new Command("ramet")
    .description("Forks and migrates live virtual machines between hosts.")
    .version(cli.environment.version, "-V, --version", "print the version of this program")
    .option("--agent <address>", "agent: unix:/path, host:port or wss://host:port")
    .option(
      "--tls <directory>",
      "certificate.pem, key.pem, authority.pem and revoked.pem to reach it over the network",
    )
    .option("--certificate <file>", "your certificate, other than in --tls")
    .option("--key <file>", "its private key, other than in --tls")
    .option("--authority <file>", "the authority to trust, other than in --tls")
    .option("--revoked <file>", "its list of revoked certificates, other than in --tls")
    .option("--key-file <file>", "pre-shared key of an agent with plain connections, on loopback")
    .option("--json", "print one JSON document, or one on each line for what goes on")
    .addHelpText("after", EPILOGUE)
    .configureHelp({ showGlobalOptions: true })
    .showSuggestionAfterError();
  const commands = [
    runCommand(cli),
    listCommand(cli),
    showCommand(cli),
    consoleCommand(cli),
    logsCommand(cli),
    stopCommand(cli),
    killCommand(cli),
    freezeCommand(cli),
    thawCommand(cli),
    suspendCommand(cli),
    resumeCommand(cli),
    removeCommand(cli),
    diskCommand(cli),
    forkCommand(cli),
    migrateCommand(cli),
    warmCommand(cli),
    emulatorsCommand(cli),
    exchangeCommand(cli),
    swapCommand(cli),
    imageCommand(cli),
    transfersCommand(cli),
    watchCommand(cli),
    cancelCommand(cli),
    sweepCommand(cli),
    steerCommand(cli),
    rollbackCommand(cli),
    peersCommand(cli),
    pingCommand(cli),
    pkiCommand(cli),
    auditCommand(cli),
    completionCommand(cli, program),
    versionCommand(cli),
  ];
  for (const command of commands) program.addCommand(command.copyInheritedSettings(program));
  return program;
}
