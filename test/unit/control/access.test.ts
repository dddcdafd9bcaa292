import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { ACCESS_ROLES, hasRole, type AccessRole, type Identity } from "../../../src/base/index.js";
import { requireAccess, requireTopic } from "../../../src/control/access.js";
import {
  isForTenants,
  METHOD_ACCESS,
  METHODS,
  TENANT_ACCESS,
  TOPIC_ACCESS,
  TOPICS,
  type MethodName,
} from "../../../src/control/index.js";

const holder = (...roles: AccessRole[]): Identity => ({ kind: "certificate", name: "CN=somebody", roles });
const methods = Object.keys(METHODS) as MethodName[];
const read = (path: string) => readFileSync(new URL(`../../../${path}`, import.meta.url), "utf8");

test("every method and topic has a role, and methods of peers have theirs", () => {
  assert.deepEqual(Object.keys(METHOD_ACCESS).sort(), [...methods].sort());
  assert.deepEqual(Object.keys(TOPIC_ACCESS).sort(), [...TOPICS].sort());
  for (const name of methods) {
    assert.equal(METHOD_ACCESS[name] === "peer", METHODS[name].role === "peer", name);
  }
});

test("each role may do what its own methods and those of the roles within it do, and no other", () => {
  const includes: Record<AccessRole, AccessRole[]> = {
    observe: ["observe"],
    operate: ["observe", "operate"],
    admin: ["observe", "operate", "admin"],
    peer: ["peer"],
  };
  for (const role of ACCESS_ROLES) {
    for (const name of methods) {
      const may = includes[role].includes(METHOD_ACCESS[name]);
      if (may) requireAccess(holder(role), name);
      else {
        assert.throws(() => requireAccess(holder(role), name), {
          code: "forbidden",
          message: `${name} needs the role ${METHOD_ACCESS[name]}; CN=somebody has ${role}`,
        });
      }
    }
  }
  assert.throws(() => requireAccess(holder(), "guest.list"), { code: "forbidden", message: /has none$/ });
  assert.ok(hasRole(holder("peer", "observe"), "observe") && hasRole(holder("peer", "observe"), "peer"));
  for (const topic of TOPICS) {
    requireTopic(holder("observe"), topic);
    assert.throws(() => requireTopic(holder("peer"), topic), { code: "forbidden" });
  }
});

test("who belongs to a tenant may do what is the tenant's own, with the role for it, and nothing else", () => {
  const tenant = (...roles: AccessRole[]): Identity => ({ ...holder(...roles), tenant: "acme" });
  assert.deepEqual(Object.keys(TENANT_ACCESS).sort(), [...methods].sort());
  for (const name of methods) {
    const needed = TENANT_ACCESS[name];
    assert.equal(isForTenants(name), needed !== "host", name);
    // What agents ask of each other is never a tenant's, and a tenant never needs more than operate.
    if (METHODS[name].role === "peer") assert.equal(needed, "host", name);
    assert.ok(needed === "host" || needed === "observe" || needed === "operate", name);
    for (const role of ACCESS_ROLES) {
      const call = () => requireAccess(tenant(role), name);
      if (needed === "host")
        assert.throws(call, {
          code: "forbidden",
          message: `${name} is not for tenants; CN=somebody belongs to the tenant acme`,
        });
      else if (hasRole(tenant(role), needed)) call();
      else assert.throws(call, { code: "forbidden", message: /needs the role/ });
    }
  }
  for (const topic of TOPICS) {
    requireTopic(tenant("observe"), topic);
    assert.throws(() => requireTopic(tenant("peer"), topic), { code: "forbidden" });
  }
});

test("docs/security.md and proto/CONTROL.md have the same table", () => {
  const rows = read("docs/security.md").split("\n");
  const control = read("proto/CONTROL.md").split("\n");
  for (const role of ACCESS_ROLES) {
    const row = rows.filter((line) => line.startsWith(`| \`${role}\` |`)).at(-1) ?? "";
    const named = [...row.matchAll(/`([a-z]+\.[A-Za-z.]+)`/g)].map(([, name]) => name);
    const meant = methods.filter((name) => METHOD_ACCESS[name] === role);
    assert.deepEqual(named.sort(), meant.sort(), role);
    for (const name of meant) {
      assert.ok(
        control.some((line) => line.startsWith(`| \`${name}\` | ${role} |`)),
        `${name} needs ${role}`,
      );
    }
  }
});

test("for guests of the tenant default, which are those of whoever runs the host, its holder needs what everybody does", () => {
  const of = (tenant: string): Identity => ({ ...holder("operate"), tenant });
  for (const name of ["guest.run", "guest.remove"] as const) {
    requireAccess(of("acme"), name);
    assert.throws(() => requireAccess(of("default"), name), {
      code: "forbidden",
      message: /needs the role admin/,
    });
  }
  requireAccess(of("default"), "guest.stop");
  assert.throws(() => requireAccess({ ...holder("admin"), tenant: "default" }, "agent.audit"), {
    message: /not for tenants/,
  });
});

test("docs/security.md says of every method what a tenant's holder needs, or that it is the host's", () => {
  const text = read("docs/security.md").split("\n");
  const methodsOf = (line: string) =>
    [...line.matchAll(/`([a-z]+\.[A-Za-z.]+)`/g)].map(([, name]) => name ?? "");
  for (const role of ["observe", "operate"]) {
    const row = text.find((line) => line.startsWith(`| tenant's \`${role}\` |`)) ?? "";
    const meant = methods.filter((name) => TENANT_ACCESS[name] === role);
    assert.deepEqual(methodsOf(row).sort(), meant.sort(), role);
  }
  const first = text.findIndex((line) => line.startsWith("| the host's |")) + 2;
  const rows = text.slice(first, text.indexOf("", first));
  const meant = methods.filter((name) => TENANT_ACCESS[name] === "host" && METHODS[name].role === "client");
  assert.deepEqual(rows.flatMap(methodsOf).sort(), meant.sort());
  for (const row of rows) assert.match(row, /\| [^|]{20,} \|$/, `${row} says why`);
});
