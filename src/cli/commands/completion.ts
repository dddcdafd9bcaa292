import { Argument, type Command } from "commander";
import { Command as CommandClass } from "commander";
import type { Cli } from "../cli.js";
import { describeCommands, SHELLS, type Shell } from "../completion/index.js";

/** `ramet completion SHELL`: prints a script for the shell. */
export function completionCommand(cli: Cli, program: Command): Command {
  const command = new CommandClass("completion")
    .description("print a completion script for a shell")
    .addArgument(new Argument("<shell>", "which shell").choices(Object.keys(SHELLS)))
    .addHelpText(
      "after",
      "\nInstall with one of:\n" +
        "  ramet completion bash > /etc/bash_completion.d/ramet\n" +
        '  ramet completion zsh > "${fpath[1]}/_ramet"\n' +
        "  ramet completion fish > ~/.config/fish/completions/ramet.fish",
    );
  return command.action((shell: Shell) => {
    cli.context(command).print(SHELLS[shell](describeCommands(program)).trimEnd());
  });
}
