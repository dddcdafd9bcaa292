import { realEnvironment } from "./real-environment.js";
import { runCli } from "./run-cli.js";

const code = await runCli(process.argv.slice(2), realEnvironment());
// What goes into a pipe may not all have been taken yet, and exiting would lose the rest.
for (const stream of [process.stdout, process.stderr]) {
  await new Promise<void>((resolve) => stream.write("", () => resolve()));
}
// Standard input may still be open, and a stalled connection may still be closing: the answer has been given.
process.exit(code);
