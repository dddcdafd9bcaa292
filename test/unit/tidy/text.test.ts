import assert from "node:assert/strict";
import { test } from "node:test";
import { filesBelow, isText, read, report } from "./files.js";

const MAX_FILE_LINES = 400;

/** Kept as their authors or a tool wrote them. */
const VERBATIM = new Set(["LICENSE", "package-lock.json"]);

const texts = filesBelow("").filter((path) => !VERBATIM.has(path) && isText(path));

/** Written in pieces, so that this file does not find itself. */
const MARKS = new RegExp(`\\b(?:${["TO" + "DO", "FIX" + "ME", "X{3,}", "HA" + "CK"].join("|")})\\b`);
const ABANDONED_TEST = new RegExp(
  `\\b(?:test|it|describe|suite|t)\\.(?:${["on" + "ly", "sk" + "ip", "to" + "do"].join("|")})\\b`,
);
const SKIP_OPTION = new RegExp(`\\{\\s*(?:${["on" + "ly", "sk" + "ip", "to" + "do"].join("|")}):`);

/** Machines get packages from wherever they are configured to; a host's name in a file would overrule that. */
const REGISTRIES = [
  ["registry", "npmjs", "org"],
  ["registry", "yarnpkg", "com"],
  ["deb", "debian", "org"],
  ["security", "debian", "org"],
  ["snapshot", "debian", "org"],
  ["archive", "ubuntu", "com"],
  ["ports", "ubuntu", "com"],
  ["deb", "nodesource", "com"],
].map((parts) => parts.join("."));

/** Lines of `path` that break a rule, as `path:line`. */
function linesMatching(path: string, breaks: (line: string) => boolean): string[] {
  return read(path)
    .split("\n")
    .flatMap((line, index) => (breaks(line) ? [`${path}:${index + 1} ${line.trim()}`] : []));
}

test("files of code are at most 400 lines", () => {
  const long = texts
    .filter((path) => /\.(?:ts|js|c|h|sh)$/.test(path) || path.startsWith("scripts/"))
    .map((path) => ({ path, lines: read(path).split("\n").length - 1 }))
    .filter(({ lines }) => lines > MAX_FILE_LINES);
  assert.deepEqual(long, []);
});

test("nothing is marked as unfinished", () => {
  assert.equal(report(texts.flatMap((path) => linesMatching(path, (line) => MARKS.test(line)))), "");
});

test("no test is left out or singled out", () => {
  const tests = texts.filter((path) => path.startsWith("test/") || path.endsWith(".test.ts"));
  const breaks = (line: string) => ABANDONED_TEST.test(line) || SKIP_OPTION.test(line);
  assert.equal(report(tests.flatMap((path) => linesMatching(path, breaks))), "");
});

test("no file names a package registry's host", () => {
  const all = [...texts, "package-lock.json"];
  const breaks = (line: string) => REGISTRIES.some((host) => line.includes(host));
  assert.equal(report(all.flatMap((path) => linesMatching(path, breaks))), "");
});

test("no source reads the environment's time or randomness behind a lint exception", () => {
  const sources = texts.filter((path) => path.startsWith("src/") && path.endsWith(".ts"));
  const breaks = (line: string) => /eslint-disable.*no-restricted/.test(line);
  assert.equal(report(sources.flatMap((path) => linesMatching(path, breaks))), "");
});

test("texts end in a newline and have no trailing blanks or tabs for indentation", () => {
  const findings = texts
    .filter((path) => !path.startsWith("proto/vectors/"))
    .flatMap((path) => [
      ...(read(path).endsWith("\n") || read(path) === "" ? [] : [`${path} does not end in a newline`]),
      ...linesMatching(path, (line) => /[ \t]$/.test(line)),
    ]);
  assert.equal(report(findings), "");
});
