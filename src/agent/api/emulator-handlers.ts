import type { Handlers, InstalledEmulator } from "../../control/index.js";
import { fileKey, programKey } from "../guests/emulator-catalogue.js";
import type { Services } from "../services.js";
import { startRun, stopRun } from "../exchange/exchange-runs.js";
import { diskHandlers } from "./disk-handlers.js";

type Methods = Extract<
  keyof Handlers<"client">,
  `emulator.${string}` | `exchange.${string}` | `disk.${string}`
>;

/** Commands on what this host has for guests: emulators, exchanges of them, and differencing disks. */
export function hostHandlers(services: Services): Pick<Handlers<"client">, Methods> {
  return {
    ...diskHandlers(services),
    "exchange.start": async (params) => {
      services.requireAccepting();
      return { run: await startRun(services, params) };
    },
    "exchange.show": async () => {
      const { latest } = services.exchanges;
      return latest === undefined ? {} : { run: latest.view() };
    },
    "exchange.stop": async () => ({ run: await stopRun(services) }),
    "emulator.list": async () => ({ emulators: await listEmulators(services) }),
  };
}

/** The host's emulators with the guests that run on each, and behind them those guests run on whose files are not there any more, as after an upgrade. */
async function listEmulators({ catalogue, registry }: Services): Promise<InstalledEmulator[]> {
  const installed = (await catalogue.installed()).map((emulator) => ({
    ...emulator,
    guests: [] as string[],
  }));
  const byFile = new Map(installed.map(({ path = "", guests }) => [fileKey(path) ?? path, guests]));
  const others = new Map<string, InstalledEmulator>();
  for (const guest of registry.list()) {
    if (!guest.hasEmulator) continue;
    const { emulator } = guest.live;
    const { architecture } = guest.config;
    const known = byFile.get(programKey(emulator.pid) ?? "");
    if (known !== undefined) {
      known.push(guest.name);
      continue;
    }
    const key = `${architecture} ${emulator.version}`;
    const other = others.get(key) ?? {
      architecture,
      isDefault: false,
      version: emulator.version,
      guests: [],
    };
    other.guests.push(guest.name);
    others.set(key, other);
  }
  return [...installed, ...others.values()];
}
