import type { z } from "zod";

type Issue = z.core.$ZodIssue;

/** What broke which rule, as one sentence that starts with the field: `memoryMiB must be at least 16`. */
export function describeIssues(issues: readonly Issue[], input: unknown): string {
  const first = issues[0];
  if (!first) return "is not valid";
  const found = innermost(first);
  const sentence = describe(found, input);
  const more = issues.length - 1;
  return more === 0 ? sentence : `${sentence} (and ${more} more ${more === 1 ? "problem" : "problems"})`;
}

/** Of the branches of a union that all failed, the one that got furthest says most. */
function innermost(issue: Issue): Issue {
  if (issue.code !== "invalid_union") return issue;
  let best: Issue = issue;
  for (const branch of issue.errors) {
    const candidate = branch[0];
    if (candidate && candidate.path.length > 0) {
      best = { ...candidate, path: [...issue.path, ...candidate.path] };
    }
  }
  return best;
}

function describe(issue: Issue, input: unknown): string {
  const field = fieldName(issue.path);
  if (issue.code === "unrecognized_keys") {
    const prefix = issue.path.length === 0 ? "" : `${field}.`;
    return `${prefix}${issue.keys[0]} is not a known field`;
  }
  if (issue.path.length > 0 && valueAt(input, issue.path) === undefined) return `${field} is missing`;
  return `${field} ${rule(issue)}`;
}

function rule(issue: Issue): string {
  switch (issue.code) {
    case "invalid_type":
      return `must be ${article(issue.expected)}`;
    case "too_small":
      return `must ${bound(issue.origin)} at least ${issue.minimum}${unit(issue.origin)}`;
    case "too_big":
      return `must ${bound(issue.origin)} at most ${issue.maximum}${unit(issue.origin)}`;
    case "invalid_value":
      return `must be ${oneOf(issue.values.map(String))}`;
    case "invalid_union":
      return "options" in issue && Array.isArray(issue.options)
        ? `must be ${oneOf(issue.options.map(String))}`
        : "has a value that is not allowed";
    default:
      return issue.message.startsWith("must ") ? issue.message : `is not valid: ${issue.message}`;
  }
}

function fieldName(path: readonly PropertyKey[]): string {
  if (path.length === 0) return "the parameters";
  return path
    .map((part, index) =>
      typeof part === "number" ? `[${part}]` : `${index === 0 ? "" : "."}${String(part)}`,
    )
    .join("");
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input;
  for (const part of path) {
    if (typeof value !== "object" || value === null) return undefined;
    value = Object.hasOwn(value, part) ? (value as Record<PropertyKey, unknown>)[part] : undefined;
  }
  return value;
}

const EXPECTED: { [name: string]: string } = {
  string: "a text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "a map",
  record: "a map",
  Uint8Array: "a byte string",
};

function article(expected: string): string {
  return EXPECTED[expected] ?? `of the type ${expected}`;
}

function bound(origin: string): string {
  return origin === "string" || origin === "array" ? "have" : "be";
}

function unit(origin: string): string {
  if (origin === "string") return " characters";
  return origin === "array" ? " entries" : "";
}

function oneOf(values: readonly string[]): string {
  return values.length === 1 ? `${values[0]}` : `one of ${values.join(", ")}`;
}
