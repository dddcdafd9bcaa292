import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { realClock, silentLog } from "../../../src/base/index.js";
import { identityOf, rolesOf, subjectOf } from "../../../src/lane/certificate.js";
import { derValues } from "../../../src/lane/der.js";
import { Credentials, type CredentialFiles } from "../../../src/lane/index.js";
import { RevokedSerials, splitLists } from "../../../src/lane/revocation.js";
import { TestAuthority } from "../../support/certificates.js";

const scratch = mkdtempSync(join(tmpdir(), "ramet-credentials-"));
after(() => rmSync(scratch, { recursive: true }));
const authority = new TestAuthority();

/** A certificate of its own issue, with any names. */
function selfSigned(subject: string, names: string): X509Certificate {
  const [key, out] = [join(scratch, "key"), join(scratch, "certificate")];
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key];
  const extension = names === "" ? [] : ["-addext", `subjectAltName=${names}`];
  execFileSync("openssl", ["req", "-x509", ...newKey, "-out", out, "-subj", subject, ...extension], {
    stdio: "pipe",
  });
  return new X509Certificate(readFileSync(out));
}

test("roles are whole URIs, and what only looks like one is none", () => {
  const cases: [string, string[]][] = [
    ["", []],
    ["URI:ramet:role:peer", ["peer"]],
    ["DNS:a,URI:ramet:role:admin,IP:127.0.0.1,URI:ramet:role:observe", ["observe", "admin"]],
    ["URI:ramet:role:king", []],
    ["URI:ramet:role:peer/x,URI:x-ramet:role:peer,URI:ramet:role:", []],
    ["DNS:ramet:role:peer", []],
    ["email:ramet:role:peer@example.org", []],
  ];
  for (const [names, roles] of cases) assert.deepEqual(rolesOf(selfSigned("/CN=x", names)), roles, names);
});

test("a tenant is one whole URI; what names one otherwise is refused rather than taken for none", () => {
  const certificateWith = (subjectAltName: string) =>
    ({ subjectAltName, subject: "CN=a", serialNumber: "01" }) as X509Certificate;
  assert.equal(identityOf(certificateWith("URI:ramet:role:observe, URI:ramet:tenant:acme")).tenant, "acme");
  assert.equal(
    identityOf(certificateWith("URI:ramet:role:observe, URI:x-ramet:tenant:acme")).tenant,
    undefined,
  );
  const refused = [
    "URI:ramet:tenant:",
    "URI:ramet:tenant:A",
    "URI:ramet:tenant:a/../b",
    "URI:ramet:tenants:a",
    "URI:ramet:tenant:a, URI:ramet:tenant:b",
  ];
  for (const names of refused)
    assert.throws(() => identityOf(certificateWith(names)), { code: "certificate-role" }, names);
});

test("a name that holds a separator is not taken for two", () => {
  const file = join(scratch, "names.cnf");
  writeFileSync(
    file,
    "[req]\ndistinguished_name=d\nx509_extensions=e\n[d]\n[e]\nsubjectAltName=@n\n[n]\nDNS.1=a\\, URI:ramet:role:admin\n",
  );
  const [key, out] = [join(scratch, "key"), join(scratch, "injected")];
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key];
  execFileSync("openssl", ["req", "-x509", "-config", file, ...newKey, "-out", out, "-subj", "/CN=x"], {
    stdio: "pipe",
  });
  const certificate = new X509Certificate(readFileSync(out));
  assert.match(certificate.subjectAltName ?? "", /URI:ramet:role:admin/);
  assert.deepEqual(rolesOf(certificate), []);
  assert.equal(subjectOf(certificate), "CN=x");
});

test("a list of revoked certificates names those of its issuer", () => {
  const read = ({ certificate }: { certificate: string }): X509Certificate =>
    new X509Certificate(readFileSync(certificate));
  const [one, two] = [authority.files("one"), authority.files("two")];
  const list = (): RevokedSerials => RevokedSerials.fromPem(splitLists(readFileSync(one.revoked, "utf8")));
  assert.equal(list().count, 0);
  authority.revoke("one");
  assert.equal(list().count, 1);
  assert.deepEqual([list().has(read(one)), list().has(read(two))], [true, false]);
  const others = new TestAuthority();
  assert.equal(list().has(read(others.files("one"))), false);
  const both = [readFileSync(one.revoked, "utf8"), readFileSync(others.files("one").revoked, "utf8")].join(
    "\n",
  );
  assert.equal(splitLists(both).length, 2);
  assert.ok(RevokedSerials.fromPem(splitLists(both)).has(read(one)));
});

test("lists that are none are refused, at every length", () => {
  assert.throws(() => splitLists("nothing"), { code: "bad-credentials" });
  const [list = ""] = splitLists(readFileSync(authority.files("three").revoked, "utf8"));
  const der = Buffer.from(list.replaceAll(/-----.*-----/g, ""), "base64");
  const pem = (bytes: Buffer): string =>
    `-----BEGIN X509 CRL-----\n${bytes.toString("base64")}\n-----END X509 CRL-----`;
  for (let length = 0; length < der.length; length += 1) {
    assert.throws(() => RevokedSerials.fromPem([pem(der.subarray(0, length))]), { code: "bad-credentials" });
  }
  for (const hex of ["30", "3080", "3085ffffffffff", "3084ffffffff", "300501"]) {
    assert.throws(() => derValues(Buffer.from(hex, "hex")), { code: "bad-credentials" }, hex);
  }
});

test("files that cannot be used are named, with what is wrong", () => {
  const files = authority.files("host");
  const load = (changes: Partial<CredentialFiles>) => () =>
    Credentials.load({ ...files, ...changes }, { clock: realClock, log: silentLog });
  const rubbish = join(scratch, "rubbish");
  writeFileSync(rubbish, "rubbish", { mode: 0o600 });
  const open = join(scratch, "open-key");
  writeFileSync(open, readFileSync(files.key));
  chmodSync(open, 0o644);
  const cases: [Partial<CredentialFiles>, RegExp][] = [
    [{ certificate: "/nowhere" }, /for certificate, \/nowhere, .*ENOENT/],
    [{ certificate: rubbish }, /for certificate/],
    [{ key: rubbish }, /for key/],
    [{ key: open }, /chmod 600/],
    [{ key: authority.files("other").key }, /not the key of the certificate/],
    [{ authority: rubbish }, /for authority/],
    [{ revoked: rubbish }, /for revoked, .*no revocation list/],
  ];
  for (const [changes, message] of cases) assert.throws(load(changes), { code: "bad-credentials", message });
  load({})().close();
});
