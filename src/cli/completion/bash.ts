import { offerOf, quoted, type CommandDescription } from "./describe.js";

/** A script for bash 4 and newer. Works with and without the bash-completion package. */
export function bashScript(commands: readonly CommandDescription[]): string {
  const names = commands.map((command) => command.name).join(" ");
  return `# bash completion of ramet; made by: ramet completion bash
_ramet() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" command="" word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case " ${names} " in *" $word "*) command="$word"; break ;; esac
  done
  COMPREPLY=()
  if [ -z "$command" ]; then
    COMPREPLY=($(compgen -W ${quoted(`${names} help`)} -- "$current"))
    return
  fi
  case "$command" in
${commands.map(bashCase).join("\n")}
  esac
}
complete -o default -F _ramet ramet
`;
}

function bashCase(command: CommandDescription): string {
  const flags = command.options.flatMap((option) => option.flags).join(" ");
  const valued = command.options.filter((option) => option.takesValue);
  const cases = valued.map((option) => {
    const reply =
      option.choices.length === 0
        ? ""
        : `COMPREPLY=($(compgen -W ${quoted(option.choices.join(" "))} -- "$current")); `;
    return `        ${option.flags.join("|")}) ${reply}return ;;`;
  });
  const offer = offerOf(command.arguments.find((argument) => argument !== "nothing"));
  const words = "run" in offer ? `"$(${offer.run})"` : quoted(offer.words.join(" "));
  return `    ${command.name})
      case "$previous" in
${cases.join("\n")}
      esac
      case "$current" in
        -*) COMPREPLY=($(compgen -W ${quoted(flags)} -- "$current")) ;;
        *) COMPREPLY=($(compgen -W ${words} -- "$current")) ;;
      esac ;;`;
}
