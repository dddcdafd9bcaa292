import type { Handlers } from "../../control/index.js";
import { AgentError } from "../errors.js";
import type { Services } from "../services.js";
import { forkFrom } from "../transfers/fork-guest.js";
import { rollBack } from "../transfers/roll-back.js";
import { migrateFrom } from "../transfers/migrate-guest.js";
import type { TransferCommands, TransferEntry } from "../transfers/transfer-entry.js";
import { findGuest } from "./guest-handlers.js";

type TransferHandlers = Pick<
  Handlers<"client">,
  "guest.fork" | "guest.migrate" | "guest.rollback" | Extract<keyof Handlers<"client">, `transfer.${string}`>
>;

/** Fork and migrate, and the commands on transfers under way. */
export function transferHandlers(services: Services): TransferHandlers {
  const { book } = services;
  return {
    "guest.fork": async (params) => {
      services.requireAccepting();
      findGuest(services, params.name);
      return { transfers: await forkFrom(services, params) };
    },
    "guest.migrate": async (params) => {
      services.requireAccepting();
      findGuest(services, params.name);
      return { transfers: await migrateFrom(services, params) };
    },
    "guest.rollback": (params) => rollBack(services, params),
    "transfer.list": async ({ active }) => ({
      transfers: book.list({ active }).map((entry) => entry.view()),
    }),
    "transfer.show": async ({ transfer, role }) => ({ transfer: book.find(transfer, role).view() }),
    "transfer.cancel": async ({ transfer, reason }) => {
      const entry = book.find(transfer);
      await commandsOf(entry, "cancelled").cancel(reason);
      return { transfer: entry.view() };
    },
    "transfer.sweep": async ({ transfer, sweep }) => {
      const entry = book.find(transfer);
      commandsOf(entry, "swept").steer({ sweep });
      return { transfer: entry.view() };
    },
    "transfer.steer": async ({ transfer, ...change }) => {
      const entry = book.find(transfer);
      commandsOf(entry, "steered").steer(change);
      return { transfer: entry.view() };
    },
    "transfer.run": async ({ transfer }) => {
      const entry = book.find(transfer);
      // Also when it is over: a child that was held may be complete, and a migration that failed may be rolled back.
      if (entry.commands === undefined)
        throw new AgentError("bad-state", `transfer ${transfer} has nothing to run`);
      await entry.commands.run();
      return { transfer: entry.view() };
    },
  };
}

function commandsOf(entry: TransferEntry, doing: string): TransferCommands {
  if (entry.over || entry.commands === undefined) {
    throw new AgentError(
      "bad-state",
      `transfer ${entry.transfer} is over (${entry.phase}) and cannot be ${doing}`,
    );
  }
  return entry.commands;
}
