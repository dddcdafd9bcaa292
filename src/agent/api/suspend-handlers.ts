import type { Handlers } from "../../control/index.js";
import { resumePaused } from "../guests/resume-paused.js";
import type { Services } from "../services.js";
import { resumeGuest } from "../suspend/resume-guest.js";
import { suspendGuest } from "../suspend/suspend-guest.js";
import { findGuest } from "./guest-handlers.js";

/** Commands that take a guest out of its emulator, and bring it into one again. */
export function suspendHandlers(
  services: Services,
): Pick<Handlers<"client">, "guest.suspend" | "guest.resume"> {
  return {
    "guest.suspend": async ({ name }) => {
      services.requireAccepting();
      return { guest: await suspendGuest(services, findGuest(services, name)) };
    },
    "guest.resume": async (params) => {
      services.requireAccepting();
      const guest = findGuest(services, params.name);
      return guest.state === "paused" || guest.record.standsStill === true
        ? resumePaused(services, guest, params)
        : resumeGuest(services, guest, params);
    },
  };
}
