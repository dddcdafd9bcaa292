import { withDeadline, DeadlineError } from "../../base/index.js";
import type { GuestView, Handlers, Params, RpcServerSession } from "../../control/index.js";
import { AgentError } from "../errors.js";
import { exchangeGuest } from "../exchange/exchange-guest.js";
import type { Guest } from "../guests/guest.js";
import { runGuest } from "../guests/run-guest.js";
import { freezeGuest, thawGuest } from "../guests/template.js";
import { giveUpSuspended } from "../suspend/found-suspension.js";
import { withArrivals } from "../disks/guest-disks.js";
import type { Services } from "../services.js";
import { swapGuests } from "../swap/swap-guests.js";
import { warmAt } from "../transfers/warm-emulators.js";
import { withDiskWork } from "./disk-work.js";
import { suspendHandlers } from "./suspend-handlers.js";
import type { Consoles } from "./consoles.js";
import type { LogFollowers } from "./log-followers.js";

type GuestHandlers = Pick<Handlers<"client">, Extract<keyof Handlers<"client">, `guest.${string}`>>;

/** Commands on guests, but for fork and migrate. */
export function guestHandlers(
  services: Services,
  parts: { consoles: Consoles; logs: LogFollowers },
): Omit<GuestHandlers, "guest.fork" | "guest.migrate" | "guest.rollback"> {
  const { consoles, logs } = parts;
  const find = (name: string): Guest => findGuest(services, name);
  return {
    "guest.run": async (params, { session }) => ({ guest: await runFor(services, params, session) }),
    "guest.list": async () => ({ guests: services.registry.list().map((guest) => guest.view()) }),
    "guest.show": async ({ name }) => ({ guest: withArrivals(services, find(name).view()) }),
    "guest.stop": async ({ name, deadlineMs }) => ({
      guest: await stopGuest(services, find(name), deadlineMs),
    }),
    "guest.kill": async ({ name }) => ({ guest: await killGuest(services, find(name)) }),
    "guest.freeze": async ({ name }) => {
      services.requireAccepting();
      await freezeGuest(services, find(name));
      return { guest: find(name).view() };
    },
    "guest.thaw": async ({ name }) => {
      await thawGuest(services, find(name));
      return { guest: find(name).view() };
    },
    "guest.exchange": async (params) => {
      services.requireAccepting();
      find(params.name);
      return exchangeGuest(services, params);
    },
    "guest.swap": async (params) => {
      services.requireAccepting();
      find(params.name);
      return swapGuests(services, params);
    },
    "guest.remove": async ({ name }) => {
      const guest = find(name);
      guest.requireIdle();
      if (guest.state === "running" || guest.state === "starting" || guest.state === "unreadable") {
        throw new AgentError(
          "bad-state",
          `guest ${name} is ${guest.state}; stop or kill it before it is removed`,
        );
      }
      await services.registry.remove(guest);
      return {};
    },
    "guest.logs": async (params, { session }) => ({
      lines: await logs.read(find(params.name), params, session),
    }),
    "guest.console.open": async ({ name }, { session }) => ({
      console: await consoles.open(find(name), session),
    }),
    "guest.console.input": async ({ console, data }, { session }) => {
      await consoles.input(session, console, data);
      return {};
    },
    "guest.console.close": async ({ console }, { session }) => {
      consoles.close(session, console);
      return {};
    },
    ...suspendHandlers(services),
    "guest.warm": async ({ name, ...wanted }) => {
      services.requireAccepting();
      return { warm: await warmAt(services, find(name), wanted) };
    },
  };
}

async function runFor(
  services: Services,
  { work, ...params }: Params<"guest.run">,
  session: RpcServerSession,
): Promise<GuestView> {
  services.requireAccepting();
  const { clock } = services;
  const guest = await withDiskWork(clock, { session, work }, (follower) =>
    runGuest(services, params, follower),
  );
  return guest.view();
}

/** A guest by name; one that was migrated away says where to. */
export function findGuest(services: Services, name: string): Guest {
  const guest = services.registry.byName(name);
  if (guest !== undefined) return guest;
  const migration = services.book.lastMigrationOf(name);
  if (migration === undefined) return services.registry.find(name);
  throw new AgentError("no-such-guest", `guest ${name} was migrated to ${migration.host}; ask there`);
}

async function stopGuest(services: Services, guest: Guest, deadlineMs: number) {
  if (!guest.isLive) return guest.view();
  guest.requireState("stopped", "running");
  await guest.live.emulator.powerDown();
  try {
    await withDeadline(services.clock, deadlineMs, `the end of guest ${guest.name}`, guest.whenOff());
  } catch (error) {
    if (!(error instanceof DeadlineError)) throw error;
    throw new AgentError(
      "timeout",
      `guest ${guest.name} did not switch itself off within ${deadlineMs} ms; it may ignore its power button: ramet kill ${guest.name}`,
    );
  }
  return guest.view();
}

async function killGuest(services: Services, guest: Guest) {
  const { registry } = services;
  if (guest.state === "suspended") return endSuspended(services, guest);
  // Found by this agent, and out of its hands: it did not answer.
  if (guest.isLive && !guest.hasEmulator && guest.state !== "starting") await registry.endUnanswering(guest);
  if (!guest.isLive) return guest.view();
  await guest.live.emulator.kill();
  await guest.whenOff();
  // Its emulator was at its end anyway.
  const { state } = guest.view();
  return state === "suspended" ? endSuspended(services, guest) : guest.view();
}

async function endSuspended(services: Services, guest: Guest) {
  const leave = guest.occupy({ what: "being ended", transfers: [] });
  try {
    await giveUpSuspended(services, guest);
  } finally {
    leave();
  }
  return guest.view();
}
