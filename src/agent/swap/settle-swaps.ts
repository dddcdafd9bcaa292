import { codeOf, deferred, messageOf } from "../../base/index.js";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";
import { lacks, movePlaces, type Moved, type Side } from "./move-roles.js";
import { nameParents } from "./name-parents.js";
import type { Role, Roles } from "./roles.js";
import { readSwaps, type SwapFile } from "./swap-record.js";

type Parts = Pick<Services, "registry" | "swaps" | "paths" | "configuration" | "clock" | "log">;

/**
 * Brings to their end the exchanges of roles that an earlier agent left: names at once, before anybody asks for a guest by one, and places in the network when both emulators answer.
 */
export async function restoreSwaps(services: Parts): Promise<void> {
  const { registry, swaps, paths, log } = services;
  const files = await readSwaps(paths.swaps, (error) =>
    log.error({ problem: error.message }, "a swap was left"),
  );
  for (const file of files) {
    swaps.unfinished.add(file);
    const isForward = goesForward(services, file);
    // Before either record is read by anybody.
    const saved = giveNames(services, isForward ? file.after : file.before);
    saved.catch(() => {});
    const guests = file.before
      .flatMap(({ id }) => registry.byId(id) ?? [])
      .filter((guest) => guest.hasEmulator);
    const both = deferred<void>();
    let missing = guests.length;
    const settled = both.promise
      .then(() => saved)
      .then(() => swaps.during(() => settleSwap(services, file, isForward)))
      .catch((error: unknown) => {
        // Another agent does it.
        if (codeOf(error) !== "draining")
          log.error({ problem: messageOf(error) }, "a swap could not be settled");
      });
    if (missing === 0) both.resolve();
    for (const guest of guests) {
      let hasCome = false;
      const come = (): void => {
        if (!hasCome) missing -= 1;
        hasCome = true;
        if (missing === 0) both.resolve();
      };
      // One that ends before it answers is not waited for.
      void guest.whenOff().then(come);
      registry.whenAnswering(guest, () => {
        come();
        return settled;
      });
    }
  }
}

/** Whether the child is to have production's role: it has its place already, or nobody else can have it. */
function goesForward({ registry }: Parts, { step, before: [parent, child] }: SwapFile): boolean {
  const lives = ({ id }: Role): boolean => registry.byId(id)?.hasEmulator === true;
  return step === "moved" || (!lives(parent) && lives(child));
}

/** Both in the same moment, so that nobody finds one name twice or not at all. Resolves when it is on disk. */
export async function giveNames({ registry, configuration }: Parts, roles: Roles): Promise<void> {
  const saved = roles.map(({ id, name, network, attached }) =>
    registry.byId(id)?.update({ role: { name, network, attached } }),
  );
  await Promise.all([...saved, nameParents(registry, configuration.name)]);
}

/**
 * Gives both guests the places of one of the two roles of a swap, and forgets it. May be done again.
 * @throws AgentError `no-room` or the file system's error.
 */
export async function settleSwap(services: Parts, file: SwapFile, isForward: boolean): Promise<void> {
  const { swaps, log } = services;
  const [one, other] = isForward ? file.after : file.before;
  const [main, second] = isForward ? [other, one] : [one, other];
  const problem = await tryMove(services, main, second);
  await giveNames(services, isForward ? file.after : file.before);
  await file.remove();
  swaps.unfinished.delete(file);
  const { step } = file;
  log.warn({ step, guests: [main.name, second.name], problem }, "a swap was settled for an earlier agent");
}

/** Guests that must run on in any case: what they lack is said in their messages. */
async function tryMove(services: Parts, main: Role, second: Role): Promise<string | undefined> {
  const sides = [sideOf(services, main), sideOf(services, second)] as const;
  try {
    return noteLack(services, second, await movePlaces(...sides, services));
  } catch (error) {
    const message = lacks(main, error);
    return noteLack(services, main, { message });
  }
}

function noteLack({ registry }: Parts, role: Role, { message }: Partial<Moved>): string | undefined {
  const guest = registry.byId(role.id);
  if (message !== undefined && guest?.isLive === true) guest.note({ message });
  return message;
}

export function sideOf({ registry }: Pick<Parts, "registry">, { id, name, network }: Role): Side {
  const guest: Guest | undefined = registry.byId(id);
  return { name, network, emulator: guest?.hasEmulator === true ? guest.live.emulator : undefined };
}
