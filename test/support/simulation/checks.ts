import type { ChildAgent } from "./child-agent.js";
import type { SimulatedGuest } from "./guest.js";
import type { ParentAgent } from "./parent-agent.js";
import type { Plan } from "./plan.js";

/** Everything that promises are checked against. */
export interface Scene {
  plan: Plan;
  guest: SimulatedGuest;
  agent: ParentAgent;
  children: readonly ChildAgent[];
  /** The parent's memory at the instant. */
  oracle: readonly Uint8Array[] | undefined;
}

/** What holds after every event. */
export function checkAlways({ plan, guest, agent, children }: Scene): void {
  if (plan.migrate && guest.running && children.some((child) => child.running))
    throw new Error("parent and child of a migration both run");
  if (agent.copies > plan.copyBudgetPages)
    throw new Error(`${agent.copies} copies are more than the budget of ${plan.copyBudgetPages}`);
  const copies = agent.instant?.copies;
  if (copies !== undefined && copies.waitingWriters > 0 && copies.pages < copies.budgetPages)
    throw new Error("a writer waits although the budget has room");
  for (const session of agent.sessions) {
    const { received, total } = session.progress();
    if (received > total) throw new Error("more pages were received than there are");
  }
}

/** A child sees what it wrote itself, and else what the parent had at the instant. */
export function checkPage({ oracle }: Scene, child: ChildAgent, page: number): void {
  const expected = child.own.get(page) ?? oracle?.[page];
  const { memory } = child;
  if (expected === undefined || memory === undefined) throw new Error("a child ran before the instant");
  if (Buffer.compare(memory.content(page), expected) !== 0)
    throw new Error(`page ${page} of child ${child.transfer} is not what it was at the instant`);
}

/** What holds when no agent has anything left to do. */
export function checkEnd(scene: Scene): void {
  const { plan, agent, guest, children } = scene;
  if (agent.copies > 0) throw new Error(`${agent.copies} copies are left`);
  const phase = agent.instant?.phase ?? "released";
  if (phase !== "released") throw new Error(`the instant is left ${phase}`);
  if (plan.migrate) {
    checkMigration(scene);
  } else {
    if (!guest.running && guest.exists) throw new Error("a fork's parent does not run");
    if (!guest.memory.quiet) throw new Error("the parent's memory is left protected");
  }
  for (const child of children) {
    if (child.complete) for (let page = 0; page < plan.pages; page += 1) checkPage(scene, child, page);
    else if (child.everRan && isInnocent(scene, child))
      throw new Error(`child ${child.transfer} ran and was lost`);
  }
}

/** The guest is at exactly one place: here, there, or stopped for its operator because there was no room for it there. */
function checkMigration({ plan, agent, guest, children }: Scene): void {
  const arrived = children.some((child) => child.running && child.complete);
  const places = [guest.running, arrived, agent.stays].filter(Boolean).length;
  if (places !== 1) throw new Error(`the migrated guest is at ${places} places`);
  if (arrived !== agent.gone) throw new Error("the parent is kept, or was removed, for no reason");
  if (agent.stays && plan.outOfMemoryAfter === undefined) throw new Error("the migrated guest was lost");
}

/** Nothing ended the child but what went wrong between the agents themselves. */
function isInnocent({ plan, agent }: Scene, child: ChildAgent): boolean {
  const outOfMemory = plan.outOfMemoryAfter !== undefined && child.transfer === 1;
  return !outOfMemory && !agent.givenUp.has(child.transfer);
}
