// Preloaded into each file of tests: adds a line to the file RAMET_TEST_TIMES when its process ends, with the seconds it took,
// the seconds of processor time of itself and of processes it waited for, and its name.
import { appendFileSync, readFileSync } from "node:fs";
import { relative } from "node:path";
import { isMainThread } from "node:worker_threads";

const times = process.env.RAMET_TEST_TIMES;
const file = process.argv[1] ?? "";
const TICKS_PER_S = 100;

if (times !== undefined && isMainThread && file.endsWith(".test.ts")) {
  process.on("exit", () => {
    // utime, stime, cutime, cstime: the 14th to 17th (man 5 proc); the second, a name in brackets, may hold blanks.
    const fields = readFileSync("/proc/self/stat", "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
    const seconds = [performance.now() / 1000, ticks / TICKS_PER_S].map((value) => value.toFixed(1));
    appendFileSync(times, `${seconds.join(" ")} ${relative(process.cwd(), file)}\n`);
  });
}
