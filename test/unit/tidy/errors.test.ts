import assert from "node:assert/strict";
import { test } from "node:test";
import ts from "typescript";
import { filesBelow, read, report } from "./files.js";

/** A class `extends CodedError<…>` and the codes of its union. */
interface ErrorClass {
  name: string;
  path: string;
  codes: string[];
}

/** Literal members of a union type, through aliases and `(typeof LIST)[number]` of the same file. */
function literalsOf(type: ts.TypeNode, file: ts.SourceFile): string[] {
  if (ts.isLiteralTypeNode(type) && ts.isStringLiteral(type.literal)) return [type.literal.text];
  if (ts.isParenthesizedTypeNode(type)) return literalsOf(type.type, file);
  if (ts.isUnionTypeNode(type)) return type.types.flatMap((member) => literalsOf(member, file));
  if (ts.isTypeReferenceNode(type)) {
    const alias = file.statements.find(
      (statement): statement is ts.TypeAliasDeclaration =>
        ts.isTypeAliasDeclaration(statement) && statement.name.text === type.typeName.getText(file),
    );
    if (alias !== undefined) return literalsOf(alias.type, file);
  }
  throw new Error(
    `${file.fileName}: write the codes "${type.getText(file)}" as a union of strings in this file`,
  );
}

function errorClasses(): ErrorClass[] {
  const found: ErrorClass[] = [];
  for (const path of filesBelow("src").filter((name) => name.endsWith(".ts"))) {
    const text = read(path);
    if (!text.includes("extends CodedError<")) continue;
    const file = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
    const visit = (node: ts.Node): void => {
      const parent = ts.isClassDeclaration(node) ? node.heritageClauses?.[0]?.types[0] : undefined;
      const codes = parent?.typeArguments?.[0];
      if (
        ts.isClassDeclaration(node) &&
        parent?.expression.getText(file) === "CodedError" &&
        codes !== undefined
      ) {
        found.push({ name: node.name?.text ?? "?", path, codes: literalsOf(codes, file) });
      }
      ts.forEachChild(node, visit);
    };
    visit(file);
  }
  return found;
}

/** Codes documented below each `## ClassName` of docs/errors.md: the first cell of every row. */
function documentedCodes(): Map<string, string[]> {
  const documented = new Map<string, string[]>();
  let section: string[] = [];
  for (const line of read("docs/errors.md").split("\n")) {
    const heading = /^## `?([A-Za-z]+)`?/.exec(line)?.[1];
    if (heading !== undefined) documented.set(heading, (section = []));
    const code = /^\|\s*`([a-z0-9-]+)`\s*\|/.exec(line)?.[1];
    if (code !== undefined) section.push(code);
  }
  return documented;
}

test("docs/errors.md lists every code of every error class, and no other", () => {
  const documented = documentedCodes();
  const findings: string[] = [];
  for (const { name, path, codes } of errorClasses()) {
    const listed = documented.get(name) ?? [];
    for (const code of codes.filter((code) => !listed.includes(code)))
      findings.push(`${name} "${code}" of ${path} is not listed below "## ${name}"`);
    for (const code of listed.filter((code) => !codes.includes(code)))
      findings.push(`"${code}" is listed below "## ${name}", but ${path} has no such code`);
  }
  assert.equal(report(findings), "");
});

test("each room declares its error classes in its errors.ts", () => {
  const elsewhere = errorClasses().filter(
    ({ path }) => !path.startsWith("src/base/") && !path.endsWith("/errors.ts"),
  );
  assert.deepEqual(
    elsewhere.map(({ name, path }) => `${name} in ${path}`),
    [],
  );
});
