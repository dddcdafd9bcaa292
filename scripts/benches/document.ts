import { markdownOf, type Metrics } from "./statistics.js";

/**
 * A table of a document that is made of measurements: everything between these lines. The names may hold `*` for any letters, digits
 * and underscores; the table has the metrics in the order of the names.
 *
 *     <!-- bench SUITE: NAME NAME… -->
 *     <!-- end of bench -->
 */
const BLOCK = /(<!-- bench ([a-z-]+): ([^\n]*?) -->\n)[^]*?(\n<!-- end of bench -->)/g;

function select(metrics: Readonly<Metrics>, patterns: readonly string[]): Metrics {
  return Object.fromEntries(
    patterns.flatMap((pattern) => {
      const shape = new RegExp(`^${pattern.replaceAll("*", "\\w*")}$`);
      return Object.entries(metrics).filter(([name]) => shape.test(name));
    }),
  );
}

/**
 * The document with the tables of one suite made anew. What a run did not measure keeps its table.
 * @throws Error when the document has no table of the suite.
 */
export function withTables(
  document: string,
  { suite, metrics }: { suite: string; metrics: Metrics },
): string {
  let found = 0;
  const text = document.replace(BLOCK, (block, begin: string, of: string, names: string, end: string) => {
    if (of !== suite) return block;
    found += 1;
    const chosen = select(metrics, names.trim().split(/\s+/));
    return Object.keys(chosen).length === 0 ? block : `${begin}\n${markdownOf(chosen)}\n${end}`;
  });
  if (found === 0) throw new Error(`the document has no table of ${suite}`);
  return text;
}
