/**
 * A client that asks a sample guest again and again who it is, prints a line when another one answers, and what it saw when it is told to end.
 *   role-client.ts URL keep|anew     over one connection for as long as that lasts, or over a new one each time
 */
import { Agent, get } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const ANSWER_DEADLINE_MS = 5000;
const REST_MS = 5;
/** After one that was not answered: by then a swap is over, on a busy machine as well. */
const RETRY_MS = 500;

const [url = "", mode = "anew"] = process.argv.slice(2);
const agent = new Agent({ keepAlive: mode === "keep", maxSockets: 1 });

function ask(): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(`${url}/vmgenid`, { agent, timeout: ANSWER_DEADLINE_MS }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => (body += chunk));
      response.on("error", reject);
      response.on("end", () => {
        if (response.complete) resolve((JSON.parse(body) as { vmgenid: string }).vmgenid);
        else reject(new Error("half an answer"));
      });
    });
    request.on("timeout", () => request.destroy(new Error("no answer in time")));
    request.on("error", reject);
  });
}

let going = true;
process.on("SIGTERM", () => (going = false));
/** Who answered, one after the other, and how often each had to be asked again before it did. */
const turns: { machine: string; answers: number; retries: number }[] = [];
let retries = 0;
while (going) {
  try {
    const machine = await ask();
    const last = turns.at(-1);
    if (last?.machine === machine) {
      last.answers += 1;
      last.retries += retries;
    } else {
      turns.push({ machine, answers: 1, retries });
      process.stdout.write("\n");
    }
    retries = 0;
  } catch {
    retries += 1;
    await sleep(RETRY_MS);
  }
  await sleep(REST_MS);
}
agent.destroy();
process.stdout.write(JSON.stringify({ turns, unanswered: retries }));
