import assert from "node:assert/strict";
import { test } from "node:test";
import {
  guestNameIn,
  guestNameProblem,
  MAX_GUEST_NAME_CHARACTERS,
  plainNameOf,
  tenantOfGuest,
} from "../../../src/base/index.js";
import { nameBeside, NumberedNames } from "../../../src/agent/transfers/child-names.js";

test("a guest's tenant is part of its name", () => {
  assert.equal(tenantOfGuest("web"), "default");
  assert.equal(tenantOfGuest("web@acme"), "acme");
  assert.equal(plainNameOf("web@acme"), "web");
  assert.equal(plainNameOf("web"), "web");
  assert.equal(guestNameIn("acme", "web"), "web@acme");
  assert.equal(guestNameIn("acme", "web@rival"), "web@rival");
  assert.equal(guestNameIn("default", "web"), "web");
});

test("a name has one spelling, and its rule is told", () => {
  const longest = `${"w".repeat(63)}@${"t".repeat(63)}`;
  assert.equal(longest.length, MAX_GUEST_NAME_CHARACTERS);
  for (const good of ["web", "w", "web-1", "web@acme", "web@a.b_c-d", longest])
    assert.equal(guestNameProblem(good), undefined, good);
  assert.match(guestNameProblem("web@default") ?? "", /plain names: web$/);
  for (const bad of ["", "@", "web@", "@acme", "web@@acme", "web@acme@rival", "Web", "web@Acme", "web@-acme"])
    assert.notEqual(guestNameProblem(bad), undefined, bad);
  assert.match(guestNameProblem(`${"w".repeat(64)}@acme`) ?? "", /at most 63 characters/);
  assert.match(guestNameProblem(`web@${"t".repeat(64)}`) ?? "", /1 to 63/);
});

test("what is made of a guest is of its tenant", () => {
  assert.equal(nameBeside("web@acme", "x"), "x@acme");
  assert.equal(nameBeside("web@acme", "x@acme"), "x@acme");
  assert.equal(nameBeside("web", "x"), "x");
  for (const [guest, name] of [
    ["web@acme", "x@rival"],
    ["web", "x@acme"],
  ] as const)
    assert.throws(() => nameBeside(guest, name), { code: "bad-request" });
  const row = new NumberedNames("web@acme");
  assert.deepEqual([row.next(), row.next()], ["web-1@acme", "web-2@acme"]);
  const long = new NumberedNames(`${"w".repeat(63)}@acme`).next();
  assert.equal(guestNameProblem(long), undefined);
});
