/**
 * A client of the sample guest, for the quickstart:
 *   guest-client.ts ready URL           waits until the guest answers
 *   guest-client.ts counter URL         asks once and prints the guest's counter
 *   guest-client.ts rows URL [start]    counts the rows the guest has committed to its disk, or has it begin to commit some
 *   guest-client.ts talk URL            one request after another over one TCP connection until SIGTERM, then prints what it saw
 */
import { Agent, get } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const READY_DEADLINE_MS = 60_000;
const ANSWER_DEADLINE_MS = 10_000;
const REST_MS = 20;
/** So many are told of by name. */
const MOST_ERRORS = 10;

interface Answer {
  counter: number;
  reused: boolean;
  tookMs: number;
}

function ask(url: string, agent: Agent): Promise<Answer> {
  const startedAt = performance.now();
  return new Promise((resolve, reject) => {
    const request = get(`${url}/counter`, { agent, timeout: ANSWER_DEADLINE_MS }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => (body += chunk));
      response.on("error", reject);
      response.on("end", () => {
        const { counter } = JSON.parse(body) as { counter: number };
        resolve({ counter, reused: request.reusedSocket, tookMs: performance.now() - startedAt });
      });
    });
    request.on("timeout", () => request.destroy(new Error(`no answer within ${ANSWER_DEADLINE_MS} ms`)));
    request.on("error", reject);
  });
}

async function waitUntilReady(url: string): Promise<void> {
  const agent = new Agent({ keepAlive: false });
  const until = Date.now() + READY_DEADLINE_MS;
  for (;;) {
    try {
      await ask(url, agent);
      return;
    } catch (error) {
      if (Date.now() > until)
        throw new Error(`${url} did not answer within ${READY_DEADLINE_MS} ms`, { cause: error });
      await sleep(100);
    }
  }
}

/** Has the guest begin to commit rows to its disk (`start`), or read and count all of them (`verify`). */
async function rows(url: string, verb: string): Promise<string> {
  const answer = await fetch(`${url}/disk/${verb}`, { signal: AbortSignal.timeout(ANSWER_DEADLINE_MS) });
  const { committed, wrong } = (await answer.json()) as { committed: number; wrong: number };
  return `${committed} rows committed, ${wrong} of them wrong`;
}

async function talk(url: string): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  let going = true;
  let answers = 0;
  let connections = 0;
  const errors: string[] = [];
  let slowestMs = 0;
  process.on("SIGTERM", () => (going = false));
  while (going) {
    try {
      const { reused, tookMs } = await ask(url, agent);
      answers += 1;
      if (answers === 1) console.log("the first answer");
      if (!reused) connections += 1;
      slowestMs = Math.max(slowestMs, tookMs);
    } catch (error) {
      errors.push(`after ${answers} answers: ${error instanceof Error ? error.message : String(error)}`);
    }
    await sleep(REST_MS);
  }
  agent.destroy();
  const over = `over ${connections} TCP connection${connections === 1 ? "" : "s"}`;
  console.log(
    `${answers} answers ${over}, ${errors.length} errors, slowest answer ${slowestMs.toFixed(0)} ms`,
  );
  for (const error of errors.slice(0, MOST_ERRORS)) console.log(error);
}

const [verb, url, what = "verify"] = process.argv.slice(2);
if (url === undefined) throw new Error("usage: guest-client.ts ready|counter|rows|talk URL");
switch (verb) {
  case "ready":
    await waitUntilReady(url);
    break;
  case "counter":
    console.log((await ask(url, new Agent({ keepAlive: false }))).counter);
    break;
  case "rows":
    console.log(await rows(url, what));
    break;
  case "talk":
    await talk(url);
    break;
  default:
    throw new Error(`guest-client.ts has no verb ${verb}`);
}
