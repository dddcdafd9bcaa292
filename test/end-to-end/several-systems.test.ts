import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { whyMissing } from "../support/missing.js";
import { missingSampleGuest } from "../support/sample-guest.js";

const ROOT = new URL("../..", import.meta.url).pathname;
const DEADLINE_MS = 600_000;
/** Guests, with their copies: three systems, each in three places. */
const COUNTING = ["intel on here", "intel-near on here", "intel-far on there"].flatMap((name) => [
  name,
  name.replace("intel", "arm"),
]);
const TESTING = ["memtest on here", "memtest-near on here", "memtest-far on there"];

const skip = missingSampleGuest("aarch64") || whyMissing(join(ROOT, "scripts/memtest-guest"));

test(
  "three systems run on one host at once, are forked, and go on in three places each",
  { skip },
  async () => {
    const { stdout } = await promisify(execFile)(join(ROOT, "scripts/several-systems"), [], {
      timeout: DEADLINE_MS,
      killSignal: "SIGTERM",
    });
    for (const name of COUNTING) assert.match(stdout, new RegExp(`^ {2}${name} +counts \\d+, \\d+$`, "m"));
    for (const name of TESTING)
      assert.match(stdout, new RegExp(`^ {2}${name} +has tested for \\d+ s, 0 errors$`, "m"));
    // To children on their parent's host nothing was sent.
    assert.equal(stdout.match(/verified +\d+ pages, all as at the instant/g)?.length, 6);
    assert.equal(stdout.match(/shared with (intel|arm|memtest), none sent/g)?.length, 3);
    assert.match(stdout, /^memtest +limits: +memory (\d|unlimited)/m);
  },
);
