import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { EVENTS, isMethod, METHODS, type EventName } from "../../../src/control/index.js";
import { guestView } from "../../../src/control/schema/guest.js";
import { errorView } from "../../../src/control/schema/common.js";
import { transferView } from "../../../src/control/schema/transfer.js";
import {
  EVENT_BACKLOG_BYTES,
  MAX_CLIENT_PENDING,
  MAX_CLIENT_REQUEST_BYTES,
  MAX_PEER_PENDING,
  MAX_REQUEST_VALUES,
  REPLY_BACKLOG_BYTES,
} from "../../../src/control/limits.js";

const text = readFileSync(new URL("../../../proto/CONTROL.md", import.meta.url), "utf8");

/** The JSON examples, with `h'…'` turned into bytes. */
function examples(): Record<string, unknown>[] {
  return [...text.matchAll(/```json\n([\s\S]*?)```/g)].map(
    (match) =>
      JSON.parse(match[1] as string, (_key, value: unknown) => {
        const hex = typeof value === "string" ? /^h'([0-9a-f]*)'$/.exec(value)?.[1] : undefined;
        return hex === undefined ? value : Buffer.from(hex, "hex");
      }) as Record<string, unknown>,
  );
}

test("the specification names every method with its parameters, and every event", () => {
  for (const [name, method] of Object.entries(METHODS)) {
    const row = text.split("\n").find((line) => line.startsWith(`| \`${name}\` |`));
    assert.ok(row !== undefined, `${name} has a row`);
    for (const field of [...Object.keys(method.params.shape), ...Object.keys(method.result.shape)]) {
      assert.match(row, new RegExp(`\\b${field}\\b`), `the row of ${name} names ${field}`);
    }
  }
  for (const [name, data] of Object.entries(EVENTS)) {
    const row = text.split("\n").find((line) => line.startsWith(`| \`${name}\` |`));
    assert.ok(row !== undefined, `${name} has a row`);
    for (const field of Object.keys(data.shape))
      assert.match(row, new RegExp(`\\b${field}\\b`), `${name}: ${field}`);
  }
});

test("every example of the specification is a message as the agent takes or sends it", () => {
  const all = examples();
  assert.ok(all.length >= 10);
  for (const example of all) {
    if ("method" in example) {
      const { method } = example;
      assert.ok(typeof method === "string" && isMethod(method), String(method));
      METHODS[method].params.parse(example.params);
    } else if ("event" in example) {
      EVENTS[example.event as EventName].parse(example.data);
    } else if ("error" in example) errorView.parse(example.error);
    else if ("transfers" in example && "state" in example) guestView.parse(example);
    else if ("transfers" in example) METHODS["guest.fork"].result.parse(example);
    else transferView.parse(example);
  }
});

test("the limits in the specification are those of the code", () => {
  assert.match(text, new RegExp(`bytes of a request \\| ${MAX_CLIENT_REQUEST_BYTES / 1024} KiB \\| 8 MiB`));
  assert.match(text, new RegExp(`values in a request \\| ${MAX_REQUEST_VALUES} \\| ${MAX_REQUEST_VALUES}`));
  assert.match(
    text,
    new RegExp(`unanswered \\| ${MAX_CLIENT_PENDING} \\(\`busy\`\\) \\| ${MAX_PEER_PENDING} `),
  );
  assert.match(text, new RegExp(`events waiting to be read \\| ${EVENT_BACKLOG_BYTES / 1024 ** 2} MiB`));
  assert.match(text, new RegExp(`replies waiting to be read \\| ${REPLY_BACKLOG_BYTES / 1024 ** 2} MiB`));
});
