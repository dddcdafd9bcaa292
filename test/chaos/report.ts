import type { Result } from "./campaign.js";
import { isBad, OUTCOMES, type Outcome } from "./judge.js";
import { FAULTS, STATES } from "./plan.js";

/** One character for each outcome, for the cells of the table. */
const MARKS: Readonly<Record<Outcome, string>> = {
  "went on": ".",
  resumed: "r",
  "failed cleanly": "f",
  "rolled back": "b",
  killed: "k",
  LOST: "L",
  LEFTOVER: "O",
  STUCK: "S",
};

/** Fault by state: in each cell the outcomes with how often they came. */
export function tableOf(results: readonly Result[]): string {
  const rows = FAULTS.filter((fault) => results.some((result) => result.fault === fault)).map((fault) => [
    fault,
    ...STATES.map((state) => cellOf(results.filter((r) => r.fault === fault && r.state === state))),
  ]);
  const lines = [["fault", ...STATES], ...rows];
  const widths = [...lines[0]!.keys()].map((column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0)),
  );
  const text = lines.map(
    (line) => `| ${line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`,
  );
  text.splice(1, 0, `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`);
  return text.join("\n");
}

/** How often each outcome came, and what its mark is. */
export function countsOf(results: readonly Result[]): string {
  return OUTCOMES.map((outcome) => {
    const count = results.filter((result) => result.outcome === outcome).length;
    return `${String(count).padStart(5)}  ${MARKS[outcome]}  ${outcome}`;
  }).join("\n");
}

/** Codes of clean failures, with how often they came. */
export function codesOf(results: readonly Result[]): Record<string, number> {
  const codes: Record<string, number> = {};
  for (const { code } of results) if (code !== undefined) codes[code] = (codes[code] ?? 0) + 1;
  return codes;
}

/** One line for one injection. */
export function lineOf(result: Result): string {
  const { index, fault, state, operation, outcome, code, tookMs, phase, what } = result;
  const came = code === undefined ? outcome : `${outcome} (${code})`;
  const seconds = (tookMs / 1000).toFixed(1).padStart(5);
  const line = `${String(index).padStart(4)} ${seconds} s  ${fault} / ${state} / ${operation}: ${came}`;
  const details = [phase === "" || phase === state ? "" : `told to be ${phase}`, what].filter(
    (t) => t !== "",
  );
  const problems = isBad(outcome) ? result.problems.map((problem) => `\n         ${problem}`).join("") : "";
  return `${line}  [${details.join("; ")}]${problems}`;
}

function cellOf(results: readonly Result[]): string {
  const counts = OUTCOMES.map((outcome) => ({
    mark: MARKS[outcome],
    count: results.filter((result) => result.outcome === outcome).length,
  })).filter(({ count }) => count > 0);
  return counts.map(({ mark, count }) => (count === 1 ? mark : `${count}${mark}`)).join(" ");
}
