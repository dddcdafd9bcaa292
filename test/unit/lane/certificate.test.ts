import assert from "node:assert/strict";
import type { X509Certificate } from "node:crypto";
import { test } from "node:test";
import { identityOf } from "../../../src/lane/certificate.js";

/** A certificate whose alternative names Node gives as this text. */
const holding = (subjectAltName: string) =>
  ({ subject: "CN=alice", serialNumber: "01", subjectAltName }) as X509Certificate;

test("a certificate's roles and tenant are found among names of other kinds", () => {
  const { roles, tenant } = identityOf(
    holding("DNS:a.example, X400Name:<unsupported>, URI:ramet:role:operate, URI:ramet:tenant:acme"),
  );
  assert.deepEqual({ roles, tenant }, { roles: ["operate"], tenant: "acme" });
});

test("one whose names cannot be read, or whose tenant is written otherwise, is nobody's rather than without a tenant", () => {
  for (const names of [
    "URI:ramet:role:admin, X_400:odd, URI:ramet:tenant:acme",
    "URI:ramet:role:admin, URI:Ramet:tenant:acme",
    "URI:ramet:role:admin, URI:ramet:tenant:acme, URI:ramet:tenant:rival",
  ])
    assert.throws(() => identityOf(holding(names)), { code: "certificate-role" }, names);
});
