export { describeCommands, type CommandDescription, type OptionDescription } from "./describe.js";
import { bashScript } from "./bash.js";
import type { CommandDescription } from "./describe.js";
import { fishScript } from "./fish.js";
import { zshScript } from "./zsh.js";

/** A script for each shell, made from the description of the commands. */
export const SHELLS = { bash: bashScript, zsh: zshScript, fish: fishScript } as const satisfies {
  [shell: string]: (commands: readonly CommandDescription[]) => string;
};
export type Shell = keyof typeof SHELLS;
