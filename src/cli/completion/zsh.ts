import { offerOf, quoted, type CommandDescription, type OptionDescription } from "./describe.js";

/** A script for zsh 5 and newer, to be put where $fpath finds it as _ramet. */
export function zshScript(commands: readonly CommandDescription[]): string {
  return `#compdef ramet
# zsh completion of ramet; made by: ramet completion zsh
_ramet_words() { local -a words; words=(\${(f)"$(eval "$1")"}); compadd -a words }
_ramet() {
  local context state line curcontext="$curcontext"
  typeset -A opt_args
  _arguments -C ${sharedOptions(commands).map(zshOption).join(" ")} '1: :->command' '*:: :->arguments'
  case "$state" in
    command)
      local -a commands
      commands=(
${commands.map((command) => `        ${quoted(`${command.name}:${escaped(command.description)}`)}`).join("\n")}
      )
      _describe command commands ;;
    arguments)
      case "$words[1]" in
${commands.map(zshCase).join("\n")}
      esac ;;
  esac
}
if [ "$funcstack[1]" = _ramet ]; then _ramet "$@"; else compdef _ramet ramet; fi
`;
}

/** Those that every command has may also stand before it. */
function sharedOptions(commands: readonly CommandDescription[]): OptionDescription[] {
  const [first, ...others] = commands;
  const has = (command: CommandDescription, option: OptionDescription) =>
    command.options.some((other) => other.flags.join() === option.flags.join());
  return first?.options.filter((option) => others.every((command) => has(command, option))) ?? [];
}

function zshCase(command: CommandDescription): string {
  const specs = [
    ...command.options.map(zshOption),
    ...command.arguments.map((offered, index) => {
      const offer = offerOf(offered);
      const action =
        "run" in offer
          ? `{_ramet_words "${offer.run}"}`
          : offer.words.length > 0
            ? `(${offer.words.join(" ")})`
            : "";
      return quoted(`${index + 1}: :${action}`);
    }),
  ];
  return `        ${command.name}) _arguments ${specs.join(" ")} ;;`;
}

function zshOption(option: OptionDescription): string {
  const choices = option.choices.length > 0 ? `(${option.choices.join(" ")})` : "_default";
  const value = option.takesValue ? `:value:${choices}` : "";
  const spec = quoted(`[${escaped(option.description)}]${value}`);
  if (option.flags.length < 2) return `'*'${option.flags[0]}${spec}`;
  return `'*'{${option.flags.join(",")}}${spec}`;
}

/** Colons and brackets have a meaning in zsh's descriptions. */
function escaped(text: string): string {
  return text.replaceAll(/[\\:[\]]/g, (character) => `\\${character}`);
}
