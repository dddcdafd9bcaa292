import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as base from "../../../src/base/index.js";
import * as laneLimits from "../../../src/lane/limits.js";
import { ENCODING, FRAME_KIND, ORIGIN, PROTOCOL_VERSION } from "../../../src/wire/index.js";

const read = (path: string) => readFileSync(new URL(`../../../${path}`, import.meta.url), "utf8");
const document = read("proto/PROTOCOL.md");

/** The cells of the table rows below a heading, up to the next one. */
function rowsBelow(heading: string): string[][] {
  const start = document.indexOf(`${heading}\n`);
  assert.notEqual(start, -1, `PROTOCOL.md has no heading ${heading}`);
  const next = document.indexOf("\n#", start + 1);
  const lines = document.slice(start, next === -1 ? undefined : next).split("\n");
  return lines
    .filter((line) => line.startsWith("|"))
    .map((line) =>
      line
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

/** Every name in backquotes in the first cells of the rows. */
const namesIn = (rows: string[][]) =>
  rows.flatMap(([cell]) => /^`([a-z0-9-]+)`$/u.exec(cell ?? "")?.[1] ?? []);

/** The string literals of the union type `name` in a source file. */
function unionIn(path: string, name: string): string[] {
  const body = new RegExp(`export type ${name} =([^;]*);`, "u").exec(read(path))?.[1] ?? "";
  return [...body.matchAll(/"([a-z0-9-]+)"/gu)].map((match) => match[1] as string);
}

test("the limits of PROTOCOL.md are those of the code", () => {
  const constants: Record<string, unknown> = { ...base, ...laneLimits };
  const rows = rowsBelow("## 9. Limits").filter((row) => row[2]?.startsWith("`"));
  assert.ok(rows.length > 15);
  for (const [what, value, name] of rows) {
    assert.equal(constants[(name as string).slice(1, -1)], Number(value), `${what} (${name})`);
  }
});

test("the version, kinds, encodings and origins of PROTOCOL.md are those of the code", () => {
  assert.ok(document.startsWith(`# The page protocol, version ${PROTOCOL_VERSION}\n`));
  const kinds = rowsBelow("## 3. Frames").flatMap(([value, name]) =>
    /^\d$/u.test(value ?? "") ? [[name?.slice(1, -1), Number(value)]] : [],
  );
  assert.deepEqual(Object.fromEntries(kinds), FRAME_KIND);
  const encodings = rowsBelow("### 5.1 `pages` (1)").flatMap(([value, name]) =>
    /^\d$/u.test(value ?? "") ? [[name, Number(value)]] : [],
  );
  assert.deepEqual(Object.fromEntries(encodings), ENCODING);
  const origins = Object.entries(ORIGIN).map(([name, value]) => `${value} ${name}`);
  assert.ok(document.includes(origins.join(", ")));
});

test("every code of the wire and of the lane is in PROTOCOL.md, and no other", () => {
  const wire = namesIn(rowsBelow("### What is refused"));
  assert.deepEqual(wire.toSorted(), unionIn("src/wire/errors.ts", "WireErrorCode").toSorted());
  const lane = namesIn(rowsBelow("## 8. Ends and errors"));
  assert.deepEqual(lane.toSorted(), unionIn("src/lane/errors.ts", "LaneErrorCode").toSorted());
});
