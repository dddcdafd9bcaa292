import { messageOf } from "../../base/index.js";
import { ARCHITECTURES, type ExchangeRunView, type Params } from "../../control/index.js";
import { AgentError } from "../errors.js";
import type { Services } from "../services.js";
import { ExchangeRun } from "./exchange-run.js";
import { readRun, RunFile } from "./run-record.js";

/**
 * Begins to bring every guest of the host to another emulator. Resolves when that is written down: it goes on without the caller, and with the next agent.
 * @throws AgentError `busy` while one is under way, `no-such-emulator`, `draining`, `no-room`.
 */
export async function startRun(
  services: Services,
  { emulator, parallel, waitMs }: Params<"exchange.start">,
): Promise<ExchangeRunView> {
  requireNone(services);
  await requireEmulator(services, emulator);
  // Asking took a while.
  requireNone(services);
  services.requireAccepting();
  const { clock, exchanges, paths } = services;
  const file = new RunFile(paths.exchangeRun, {
    version: 1,
    ...(emulator === undefined ? {} : { emulator }),
    parallel,
    waitMs,
    isStopped: false,
    startedAtMs: clock.wallMs(),
    guests: guestsOf(services),
  });
  const before = exchanges.latest;
  const run = new ExchangeRun(services, file);
  exchanges.latest = run;
  try {
    await file.save();
  } catch (error) {
    exchanges.latest = before;
    throw error;
  }
  goOn(services, run);
  return run.view();
}

/** Begins with no further guest; those under way are finished. @throws AgentError `bad-state` when none is under way, `no-room`. */
export async function stopRun({ exchanges }: Services): Promise<ExchangeRunView> {
  const run = exchanges.latest;
  if (run === undefined || run.isOver)
    throw new AgentError("bad-state", "no exchange of all guests is under way");
  await run.stop();
  return run.view();
}

/** Goes on with what an earlier agent did not bring to its end. To be called once, when guests can be spoken to. */
export function goOnWithRun(services: Services): void {
  const { exchanges, log, paths } = services;
  let file: RunFile | undefined;
  try {
    file = readRun(paths.exchangeRun);
  } catch (error) {
    log.error({ problem: messageOf(error) }, "an exchange of all emulators cannot be gone on with");
  }
  if (file === undefined) return;
  const run = new ExchangeRun(services, file);
  exchanges.latest = run;
  if (run.isOver) return;
  log.info("an exchange of all emulators goes on");
  goOn(services, run);
}

/** Nobody waits for it. */
function goOn({ exchanges, log }: Services, run: ExchangeRun): void {
  exchanges
    .during((signal) => run.work(signal))
    .catch((error: unknown) => {
      log.error({ problem: messageOf(error) }, "an exchange of all emulators has ended before its time");
    });
}

function requireNone({ exchanges }: Services): void {
  if (exchanges.latest?.isOver === false)
    throw new AgentError(
      "busy",
      "an exchange of all guests is under way already; ramet exchange --status shows it, --stop ends it",
    );
}

/** @throws AgentError `no-such-emulator` when it is there for no architecture of the host's guests. */
async function requireEmulator({ catalogue, registry }: Services, wanted: string | undefined): Promise<void> {
  const guests = registry.list().filter(({ isLive }) => isLive);
  const architectures = new Set(
    guests.length === 0 ? ARCHITECTURES : guests.map(({ config }) => config.architecture),
  );
  let problem: unknown;
  for (const architecture of architectures) {
    try {
      await catalogue.choose(architecture, wanted);
      return;
    } catch (error) {
      problem ??= error;
    }
  }
  throw problem;
}

function guestsOf({ registry }: Services) {
  return registry
    .list()
    .filter(({ isLive }) => isLive)
    .map(({ id, name }) => ({ id, name, standing: "waiting" as const, tries: 0 }));
}
