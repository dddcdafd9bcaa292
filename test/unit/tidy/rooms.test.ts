import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";
import ts from "typescript";
import { filesBelow, read, report, ROOT } from "./files.js";

/** Rooms and what each may import, from the table in ARCHITECTURE.md. */
function readRoomTable(): Map<string, Set<string>> {
  const rooms = new Map<string, Set<string>>();
  const lines = read("ARCHITECTURE.md").split("\n");
  const start = lines.findIndex((line) => /^\|\s*room\s*\|/.test(line));
  assert(start >= 0, "ARCHITECTURE.md has a table whose first column is `room`");
  for (const line of lines.slice(start + 2)) {
    if (!line.startsWith("|")) break;
    const cells = line.split("|").map((cell) => cell.trim());
    const room = /^`([a-z]+)`$/.exec(cells[1] ?? "")?.[1];
    assert(room !== undefined, `the first cell of "${line}" is a room's name in backticks`);
    const imports = [...(cells[3] ?? "").matchAll(/`([a-z]+)`/g)].map((match) => match[1] as string);
    rooms.set(room, new Set(room === "base" ? [] : ["base", ...imports]));
  }
  return rooms;
}

/** Every module a file names: static, dynamic and type imports, and re-exports. */
function importsOf(path: string): string[] {
  return ts.preProcessFile(read(path), true, true).importedFiles.map((file) => file.fileName);
}

const rooms = readRoomTable();
const sources = filesBelow("src").filter((path) => path.endsWith(".ts"));

function roomOf(path: string): string {
  return path.split("/")[1] as string;
}

test("every room is in the table of ARCHITECTURE.md, and every room of the table exists", () => {
  const existing = readdirSync(join(ROOT, "src")).sort();
  assert.deepEqual(existing, [...rooms.keys()].sort());
});

test("every room has a README and a public face", () => {
  const missing = [...rooms.keys()]
    .flatMap((room) => [`src/${room}/README.md`, `src/${room}/index.ts`])
    // A program's room is entered from the shell, not imported.
    .filter((path) => path !== "src/cli/index.ts" && path !== "src/agent/index.ts")
    .filter((path) => !existsSync(join(ROOT, path)));
  assert.deepEqual(missing, []);
});

test("rooms import only what the table allows, and siblings only through their index", () => {
  const findings: string[] = [];
  for (const path of sources) {
    const room = roomOf(path);
    for (const specifier of importsOf(path).filter((name) => name.startsWith("."))) {
      const target = normalize(join(dirname(path), specifier));
      const targetRoom = roomOf(target);
      if (!target.startsWith("src/")) findings.push(`${path} imports ${specifier}, which lies outside src`);
      else if (targetRoom === room) continue;
      else if (!rooms.get(room)?.has(targetRoom))
        findings.push(`${path}: ${room} may not import ${targetRoom}`);
      else if (target !== `src/${targetRoom}/index.js`)
        findings.push(`${path} imports ${specifier}; it may import ${targetRoom}/index.js only`);
    }
  }
  assert.equal(report(findings), "");
});

test("sources import Node's modules by their node: name, and packages only when they are dependencies", () => {
  const manifest = JSON.parse(read("package.json")) as { dependencies: Record<string, string> };
  const findings: string[] = [];
  for (const path of sources) {
    for (const specifier of importsOf(path).filter((name) => !name.startsWith("."))) {
      const name = specifier.startsWith("node:") ? specifier : specifier.split("/", 1)[0];
      if (name?.startsWith("node:")) continue;
      if (name === undefined || !(name in manifest.dependencies))
        findings.push(`${path} imports ${specifier}`);
    }
  }
  assert.equal(report(findings), "");
});
